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
-- What is needed to publish a child comes along, so that it need not be read again.
update tasker.steps s
set pending_parents = s.pending_parents - f.parents,
    state = case when s.pending_parents = f.parents
                 then 'enqueued' else 'pending' end::tasker.live_state,
    enqueued_at = case when s.pending_parents = f.parents then now() end
from freed f
join locked on locked.id = f.child_id, tasker.tasks t
where s.id = f.child_id and t.id = s.task_id
returning s.id, s.task_id, s.namespace, s.queue, t.priority, s.name, s.attempt, s.dispatch_seq,
          s.tries, s.claim_required, s.pending_parents = 0 as "ready!"
