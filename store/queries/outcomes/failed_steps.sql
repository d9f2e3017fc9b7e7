-- Failed steps that are live and have no outcome, with what the retry rule needs.
select s.id, s.attempt, s.tries, s.kind::text as "kind!", t.template_id,
       coalesce(b.worker_template, s.name) as "template_step!"
from tasker.steps s
join tasker.tasks t on t.id = s.task_id
left join tasker.batches b on b.id = s.batch_id
where s.id = any($1::uuid[])
  and s.namespace = $2
  and s.state in ('enqueued', 'in_progress')
  and t.state in ('pending', 'in_progress')
  and (b.id is null or b.state = 'sealed')
  and not exists (select from tasker.outcomes o where o.step_id = s.id)
