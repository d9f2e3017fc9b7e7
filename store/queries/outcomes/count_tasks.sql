-- Tasks are locked in the order of their ids, so that two transactions cannot wait for each other.
with locked as (
    select t.id, d.active, d.pending, d.failed
    from (
        select * from unnest($1::uuid[], $2::int[], $3::int[], $4::int[])
            as d(id, active, pending, failed)
        order by id
    ) d
    cross join lateral (
        select id from tasker.tasks
        where id = d.id and state in ('pending', 'in_progress')
        for no key update
    ) t
)
update tasker.tasks t
set active_steps = t.active_steps + l.active,
    pending_steps = t.pending_steps + l.pending,
    failed_steps = t.failed_steps + l.failed,
    state = 'in_progress'
from locked l
where t.id = l.id
returning t.id, t.namespace, t.active_steps, t.pending_steps, t.failed_steps
