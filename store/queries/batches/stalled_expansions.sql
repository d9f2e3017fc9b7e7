select s.id
from tasker.steps s
join tasker.outcomes o on o.step_id = s.id and o.state = 'complete'
join tasker.tasks t on t.id = s.task_id and t.finished_at is null
left join tasker.batches b on b.batchable_step_id = s.id
where s.unsettled and s.kind = 'batchable'
  and coalesce(b.touched_at, o.created_at) < now() - make_interval(secs => $1)
order by o.created_at
limit $2
