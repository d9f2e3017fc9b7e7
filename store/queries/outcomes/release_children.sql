-- Children are locked in the order of their ids.
with freed as (
    select child_id, count(*)::int as parents
    from tasker.step_edges
    where parent_id = any($1::uuid[])
    group by child_id
    order by child_id
), locked as (
    select c.id, f.parents
    from freed f
    cross join lateral (
        select id from tasker.steps where id = f.child_id and state = 'pending' for no key update
    ) c
)
-- What is needed to publish a child comes along, so that it need not be read again.
update tasker.steps s
set pending_parents = s.pending_parents - l.parents,
    state = case when s.pending_parents = l.parents
                 then 'enqueued' else 'pending' end::tasker.live_state,
    enqueued_at = case when s.pending_parents = l.parents then now() end
from locked l
where s.id = l.id
returning s.id, s.task_id, s.namespace, s.queue,
          (select t.priority from tasker.tasks t where t.id = s.task_id) as "priority!",
          s.name, s.attempt, s.dispatch_seq, s.tries, s.claim_required,
          s.pending_parents = 0 as "ready!"
