-- I7: what was accepted is there ($2: ids that somebody was given), with its steps, and once. Tasks that
-- are being removed are gone, and what is left of their steps is going.
with wrong as (
    select a.id, 'it was accepted, and is not there' as what
    from unnest($2::uuid[]) as a(id)
    where not exists (select from tasker.tasks t where t.id = a.id)
      and not exists (select from tasker.expired_tasks e where e.task_id = a.id)
    union all
    select t.id, 'it has no step'
    from tasker.tasks t
    where not exists (select from tasker.steps s where s.task_id = t.id)
    union all
    select (array_agg(t.id order by t.id))[2],
           format('a second task of the idempotency key %s in %s', t.idempotency_key, t.namespace)
    from tasker.tasks t
    where t.idempotency_key is not null
    group by t.namespace, t.idempotency_key
    having count(*) > 1
    union all
    select s.id, format('a step of task %s, which is not there', s.task_id)
    from tasker.steps s
    where not exists (select from tasker.tasks t where t.id = s.task_id)
      and not exists (select from tasker.expired_tasks e where e.task_id = s.task_id)
)
select id as "id!", what as "what!", count(*) over () as "total!"
from wrong
order by id
limit $1
