-- What `apply.sql` does, for one step that succeeded and is no member of a batch: a step of a chain waits
-- for nothing else, and to begin and end the large statement takes longer than what it does.
--
-- The fence, the order of locks and what is returned are those of `apply.sql`, which says why.
with locked as materialized (
    select s.id, s.task_id, s.kind, s.attempt, s.dispatch_seq, s.unsettled, s.queue, s.name,
           s.state in ('enqueued', 'in_progress') as live,
           s.children = (select count(*) from tasker.step_edges e where e.parent_id = s.id)
               as edges_seen
    from tasker.steps s
    where s.id = $2 and s.namespace = $1
    for share
), inserted as (
    insert into tasker.outcomes (step_id, state, attempt, result, worker, execution_ms)
    select id, 'complete', attempt, $5::text::json, $6, $7
    from locked
    where attempt = $3
      and kind = $4::text::tasker.step_kind
      and live
      and edges_seen
    on conflict (step_id) do nothing
    returning step_id
), locked_children as (
    -- What depends on a batchable step or a decision is released when it is settled.
    select c.id, e.is_first
    from inserted i
    cross join lateral (
        select child_id, child_id = (select f.child_id from tasker.step_edges f
                                     where f.parent_id = $2
                                     order by f.child_id limit 1) as is_first
        from tasker.step_edges
        where parent_id = i.step_id and $4::text not in ('batchable', 'decision')
        order by child_id
    ) e
    cross join lateral (
        select id from tasker.steps where id = e.child_id and state = 'pending' for no key update
    ) c
), children as (
    update tasker.steps s
    set pending_parents = s.pending_parents - 1,
        state = case when s.pending_parents = 1
                     then 'enqueued' else 'pending' end::tasker.live_state,
        enqueued_at = case when s.pending_parents = 1 then now() end,
        lease_worker = case when s.pending_parents = 1 and c.is_first and $8
                             and s.queue = (select queue from locked)
                            then $6::uuid end,
        lease_until = case when s.pending_parents = 1 and c.is_first and $8
                            and s.queue = (select queue from locked)
                           then now() + make_interval(secs => $9) end
    from locked_children c
    where s.id = c.id
    returning s.id, s.task_id, s.namespace, s.queue, s.name, s.attempt, s.dispatch_seq, s.tries,
              s.claim_required, s.pending_parents = 0 as ready,
              s.lease_worker is not null as handed
), change as materialized (
    select task_id, (select count(*) from children where ready)::int as ready,
           case when unsettled then 0 else -1 end as active
    from locked
    where id = (select step_id from inserted)
), counted_tasks as (
    update tasker.tasks t
    set active_steps = t.active_steps + c.active + c.ready,
        pending_steps = t.pending_steps - c.ready,
        state = case when t.active_steps + c.active + c.ready = 0
                     then ($10::text[])[1 + (t.failed_steps > 0)::int
                                          + 2 * (t.pending_steps - c.ready > 0)::int]
                     else 'in_progress' end::tasker.task_state,
        finished_at = case when t.active_steps + c.active + c.ready = 0 then clock_timestamp() end,
        error = case when t.active_steps + c.active + c.ready = 0
                     then coalesce(t.step_error, t.error) else t.error end
    from change c
    where t.id = c.task_id and t.state in ('pending', 'in_progress')
    returning t.id, t.namespace, t.state, t.finished_at is not null as finished
)
select 'step' as "what!", id as "id!", task_id as "task_id!", null::uuid as "other?",
       kind::text as "kind?", queue as "queue?", name as "name?", null as "namespace?",
       attempt as "attempt!", dispatch_seq as "dispatch_seq!", 0 as "number!",
       unsettled as "unsettled!", live as "live!", edges_seen as "edges_seen!",
       (select step_id from inserted) is not null as "applied!",
       0::smallint as "priority!", null::int[] as "places?"
from locked
union all
select case when handed then 'handed' else 'ready' end, id, task_id,
       case when handed then $2 end, null, queue, name, namespace, attempt, dispatch_seq, tries,
       claim_required, true, true, true,
       (select t.priority from tasker.tasks t where t.id = children.task_id), null
from children
where ready
union all
select 'task', id, id, null, state::text, null, null, namespace, 0, 0, 0, false, true, true, true,
       0::smallint, null
from counted_tasks
where finished
