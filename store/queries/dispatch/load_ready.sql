select s.id, s.task_id, s.namespace, coalesce(b.queue, s.queue) as "queue!", t.priority, s.name,
       coalesce(b.worker_template, s.name) as "template_step!", s.attempt, s.dispatch_seq, s.tries,
       s.claim_required, s.cursor::text as cursor
from tasker.steps s
join tasker.tasks t on t.id = s.task_id and t.finished_at is null
left join tasker.batches b on b.id = s.batch_id
where s.id = any($1::uuid[])
  and s.state in ('enqueued', 'in_progress')
  and s.sent_seq < s.dispatch_seq
  and (s.lease_until is null or s.lease_until < now())
  and (b.id is null or b.state = 'sealed')
  and not exists (select from tasker.outcomes o where o.step_id = s.id)
order by t.priority desc, s.enqueued_at, s.id
