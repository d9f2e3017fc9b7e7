-- The batches of a task, or one batch, unless its task is being removed.
select b.id, s.name as batchable_step, b.worker_template, b.state::text as "state!",
       b.expected, b.published_upto, b.succeeded, b.failed, b.remaining, b.is_no_op,
       b.failed > b.max_failed as "stopped!"
from tasker.batches b
join tasker.steps s on s.id = b.batchable_step_id
where (b.task_id = $1 or b.id = $2)
  and exists (select from tasker.tasks t where t.id = b.task_id)
order by b.id
