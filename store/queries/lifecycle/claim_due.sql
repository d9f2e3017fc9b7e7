-- Tasks whose times are to be looked at. Whoever takes one and dies leaves it to others after a while.
with due as (
    select id from tasker.tasks
    where check_at <= now() and finished_at is null
    order by check_at
    limit $1
    for no key update skip locked
)
update tasker.tasks t
set check_at = now() + interval '30 s'
from due
where t.id = due.id
returning t.id, t.namespace, t.template_id, t.overran_at is not null as "is_stale!",
          t.check_at as "check_at!",
          (extract(epoch from now() - greatest(t.created_at, t.clock_from)) * 1000)::bigint
              as "age_ms!",
          (select coalesce(sum(b.expected), 0) from tasker.batches b
           where b.task_id = t.id and not b.settled) as "members!"
