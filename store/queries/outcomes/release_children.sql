with freed as (
    select child_id, count(*)::int as parents
    from tasker.step_edges
    where parent_id = any($1::uuid[])
    group by child_id
), locked as (
    select s.id from tasker.steps s
    where s.id in (select child_id from freed) and s.state = 'pending'
    order by s.id
    for no key update
)
update tasker.steps s
set pending_parents = s.pending_parents - f.parents,
    state = case when s.pending_parents = f.parents
                 then 'enqueued' else 'pending' end::tasker.live_state,
    enqueued_at = case when s.pending_parents = f.parents then now() end
from freed f
join locked on locked.id = f.child_id
where s.id = f.child_id
returning s.id, s.task_id, s.pending_parents = 0 as "ready!"
