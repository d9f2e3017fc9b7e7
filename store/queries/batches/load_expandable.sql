select s.id, s.task_id, s.namespace, s.name, t.priority, t.template_id, o.attempt,
       o.result::text as "result!", b.id as "batch_id?", b.expanded_upto as "expanded_upto?"
from tasker.steps s
join tasker.tasks t on t.id = s.task_id and t.finished_at is null
join tasker.outcomes o on o.step_id = s.id and o.state = 'complete'
left join tasker.batches b on b.batchable_step_id = s.id
where s.id = any($1::uuid[]) and s.unsettled and s.kind = 'batchable'
