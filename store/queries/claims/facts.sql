select s.id, s.attempt, s.dispatch_seq, s.tries, s.kind::text as "kind!", t.template_id,
       coalesce(b.worker_template, s.name) as "template_step!",
       exists (select from tasker.outcomes o where o.step_id = s.id) as "ended!",
       (s.state in ('enqueued', 'in_progress')
        and t.finished_at is null
        and (b.id is null or b.state = 'sealed')) as "live!",
       coalesce(s.lease_until > now() and s.lease_worker <> $3, false) as "held_by_other!",
       s.state = 'in_progress' and coalesce(s.lease_until > now() and s.lease_worker = $3, false)
           as "held_by_claimant!",
       s.lease_worker is not null as "was_held!"
from tasker.steps s
join tasker.tasks t on t.id = s.task_id
left join tasker.batches b on b.id = s.batch_id
where s.id = any($1::uuid[]) and s.namespace = $2
