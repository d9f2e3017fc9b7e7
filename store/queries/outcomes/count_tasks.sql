-- Tasks are locked in the order of their ids, so that two transactions cannot wait for each other.
with locked as (
    select id from tasker.tasks
    where id = any($1::uuid[]) and finished_at is null
    order by id
    for no key update
)
update tasker.tasks t
set active_steps = t.active_steps + d.active,
    pending_steps = t.pending_steps + d.pending,
    failed_steps = t.failed_steps + d.failed,
    state = 'in_progress'
from unnest($1::uuid[], $2::int[], $3::int[], $4::int[]) as d(id, active, pending, failed)
join locked on locked.id = d.id
where t.id = d.id and t.finished_at is null
returning t.id, t.namespace, t.active_steps, t.pending_steps, t.failed_steps
