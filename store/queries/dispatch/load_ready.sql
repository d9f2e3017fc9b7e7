select s.id as "id!", s.task_id as "task_id!", s.namespace as "namespace!",
       coalesce(b.queue, s.queue) as "queue!", t.priority as "priority!", s.name as "name!",
       coalesce(b.worker_template, s.name) as "template_step!", s.attempt as "attempt!",
       s.dispatch_seq as "dispatch_seq!", s.tries as "tries!",
       s.claim_required as "claim_required!", s.cursor::text as cursor
from unnest($1::uuid[]) as i(id)
cross join lateral (
    select * from tasker.steps
    where id = i.id
      and state in ('enqueued', 'in_progress')
      and sent_seq < dispatch_seq
      and (lease_until is null or lease_until < now())
    offset 0
) s
cross join lateral (
    select priority from tasker.tasks
    where id = s.task_id and state in ('pending', 'in_progress')
    offset 0
) t
left join lateral (
    select id, queue, worker_template, state from tasker.batches where id = s.batch_id offset 0
) b on true
left join lateral (select step_id from tasker.outcomes where step_id = s.id offset 0) o on true
where (b.id is null or b.state = 'sealed') and o.step_id is null
order by t.priority desc, s.enqueued_at, s.id
