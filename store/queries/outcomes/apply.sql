-- Stores outcomes and all that follows from them: one statement, so that a set costs one round trip
-- and, alone, is a transaction of its own.
--
-- The fence: an outcome is inserted only where the attempt is the current one and the step is live.
-- `for share` waits for whoever is about to raise the attempt, and holds up whoever comes later.
-- While it waits, a converging transaction may give the step further children. Edges are read as of
-- the beginning of the statement, but `children` is read under the lock: where the two differ,
-- nothing is inserted, and the caller tries again.
--
-- Locks are taken in the order steps, outcomes, children, batches, tasks, each by id: each part needs
-- rows of the one before, or counts them for this purpose alone.
--
-- Rows are found by key, one look-up each. Two sets that exist only here are never joined: there is
-- no index, and each row would meet each; `(id in (select ...)) is true` is looked up in a hash table.
with input as (
    select *
    from unnest($2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::int[],
                $9::boolean[]) with ordinality
        as i(step_id, reported_attempt, reported_kind, result, error, worker, execution_ms, takes,
             place)
    order by step_id
), locked as materialized (
    select s.id, s.task_id, s.batch_id, s.kind, s.attempt, s.dispatch_seq, s.unsettled, s.queue,
           case when s.batch_id is null then s.name end as name,
           s.state in ('enqueued', 'in_progress') as live,
           s.batch_id is not null or s.children = s.edges as edges_seen,
           i.*
    from input i
    cross join lateral (
        select s.*,
               case when s.batch_id is null
                    then (select count(*) from tasker.step_edges e where e.parent_id = s.id)
               end as edges
        from tasker.steps s
        where s.id = i.step_id and s.namespace = $1
        for share
    ) s
), inserted as (
    insert into tasker.outcomes (step_id, state, attempt, result, error, worker, execution_ms)
    select id, case when error is null then 'complete' else 'error' end::tasker.outcome_state,
           attempt, result::json, error::json, worker, execution_ms
    from locked
    where attempt = reported_attempt
      and kind = reported_kind::tasker.step_kind
      and live
      and edges_seen
    on conflict (step_id) do nothing
    returning step_id
), applied as materialized (
    select *
    from locked
    where attempt = reported_attempt
      and kind = reported_kind::tasker.step_kind
      and (id in (select step_id from inserted)) is true
), edges as (
    -- What depends on a batchable step or a decision is released when it is settled. Each parent
    -- names its worker for the first of its children.
    select e.child_id, a.id as parent_id, a.queue,
           case when a.takes and row_number() over (partition by a.id order by e.child_id) = 1
                then a.worker end as taker
    from applied a
    cross join lateral (
        select child_id from tasker.step_edges where parent_id = a.id offset 0
    ) e
    where a.batch_id is null and a.error is null and a.kind not in ('batchable', 'decision')
), freed as (
    select child_id, count(*)::int as parents,
           (array_agg(parent_id order by parent_id) filter (where taker is not null))[1] as giver,
           (array_agg(queue order by parent_id) filter (where taker is not null))[1] as queue,
           (array_agg(taker order by parent_id) filter (where taker is not null))[1] as taker
    from edges
    group by child_id
    order by child_id
), locked_children as (
    select c.id, f.parents, f.giver, f.queue, f.taker
    from freed f
    cross join lateral (
        select id from tasker.steps where id = f.child_id and state = 'pending' for no key update
    ) c
), children as (
    -- A child that is ready and in the queue of its giver is leased to the giver's worker.
    update tasker.steps s
    set pending_parents = s.pending_parents - c.parents,
        state = case when s.pending_parents = c.parents
                     then 'enqueued' else 'pending' end::tasker.live_state,
        enqueued_at = case when s.pending_parents = c.parents then now() end,
        lease_worker = case when s.pending_parents = c.parents and s.queue = c.queue
                            then c.taker end,
        lease_until = case when s.pending_parents = c.parents and s.queue = c.queue
                           then now() + make_interval(secs => $10) end
    from locked_children c
    where s.id = c.id
    returning s.id, s.task_id, s.namespace, s.queue, s.name, s.attempt, s.dispatch_seq, s.tries,
              s.claim_required, s.pending_parents = 0 as ready,
              case when s.lease_worker is not null then c.giver end as giver
), ended_members as (
    select batch_id, count(*) filter (where error is null)::int as succeeded,
           count(*) filter (where error is not null)::int as failed
    from applied
    where batch_id is not null and (select count(*) from children) >= 0
    group by batch_id
    order by batch_id
), locked_batches as (
    select b.id, m.succeeded, m.failed
    from ended_members m
    cross join lateral (
        select id from tasker.batches where id = m.batch_id for no key update
    ) b
), counted_batches as (
    -- One failure more than it tolerates stops a batch.
    update tasker.batches b
    set remaining = b.remaining - l.succeeded - l.failed,
        succeeded = b.succeeded + l.succeeded,
        failed = b.failed + l.failed,
        state = case when b.state = 'sealed' and b.failed + l.failed > b.max_failed
                     then 'failed' else b.state end
    from locked_batches l
    where b.id = l.id
    returning b.id, b.task_id, b.queue, b.remaining, l.succeeded + l.failed as ended,
              b.state = 'failed' and b.failed - l.failed <= b.max_failed as stopped,
              b.parallelism is not null as limited
), isolated as (
    insert into tasker.dead_letters (namespace, task_id, step_id, attempt, error)
    select $1, a.task_id, a.id, a.attempt, a.error::json
    from applied a
    where a.error is not null and a.batch_id is not null
      and (select b.isolates from tasker.batches b where b.id = a.batch_id)
), changes as (
    -- A step that another transaction settles keeps its place among the active ones.
    select task_id, case when unsettled then 0 else -1 end as active, 0 as pending,
           case when error is null then 0 else 1 end as failed, error
    from applied
    where batch_id is null
    union all
    select task_id, 1, -1, 0, null from children where ready
), changed_tasks as (
    select task_id, sum(active)::int as active, sum(pending)::int as pending,
           sum(failed)::int as failed,
           (array_agg(error) filter (where error is not null))[1] as error
    from changes
    where (select count(*) from counted_batches) >= 0
    group by task_id
    order by task_id
), locked_tasks as (
    select t.id, c.active, c.pending, c.failed, c.error
    from changed_tasks c
    cross join lateral (
        select id from tasker.tasks
        where id = c.task_id and state in ('pending', 'in_progress')
        for no key update
    ) t
), counted_tasks as (
    -- How a task without active steps ends is a rule of the workflow, which comes as a table: by
    -- whether something failed and whether something is pending. The first error of the task's own
    -- steps explains it best; else what was kept when a batch failed. It is kept when it happens: an
    -- outcome that was stored while this statement waited cannot be read by it.
    update tasker.tasks t
    set active_steps = t.active_steps + l.active,
        pending_steps = t.pending_steps + l.pending,
        failed_steps = t.failed_steps + l.failed,
        state = case when t.active_steps + l.active = 0
                     then ($11::text[])[1 + (t.failed_steps + l.failed > 0)::int
                                          + 2 * (t.pending_steps + l.pending > 0)::int]
                     else 'in_progress' end::tasker.task_state,
        finished_at = case when t.active_steps + l.active = 0 then clock_timestamp() end,
        step_error = coalesce(t.step_error, l.error::json),
        error = case when t.active_steps + l.active = 0
                     then coalesce(t.step_error, l.error::json, t.error) else t.error end
    from locked_tasks l
    where t.id = l.id
    returning t.id, t.namespace, t.state, t.finished_at is not null as finished
)
-- `other` is a child's giver. Members that got their outcomes, which are nearly all there are, come as
-- one row: their places in the set, from 1.
select 'step' as "what!", id as "id!", task_id as "task_id!", null::uuid as "other?",
       kind::text as "kind?", queue as "queue?", name as "name?", null as "namespace?",
       attempt as "attempt!", dispatch_seq as "dispatch_seq!", 0 as "number!",
       unsettled as "unsettled!", live as "live!", edges_seen as "edges_seen!",
       attempt = reported_attempt and (id in (select step_id from inserted)) is true as "applied!",
       0::smallint as "priority!", null::int[] as "places?"
from locked
where batch_id is null or (place in (select place from applied)) is not true
union all
select 'members', $2[1], $2[1], null, null, null, null, null, 0, 0, 0, false, true, true, true,
       0::smallint, array_agg(place::int)
from applied
where batch_id is not null
having count(*) > 0
union all
select case when giver is null then 'ready' else 'handed' end, id, task_id, giver, null, queue,
       name, namespace, attempt, dispatch_seq, tries, claim_required, true, true, true,
       (select t.priority from tasker.tasks t where t.id = children.task_id), null
from children
where ready
union all
-- How many members ended now, how many remain, whether that stopped it, and whether it has a limit.
select 'batch', id, task_id, null, null, queue, null, null, ended, 0, remaining, stopped,
       limited, true, true, 0::smallint, null
from counted_batches
union all
select 'task', id, id, null, state::text, null, null, namespace, 0, 0, 0, false, true, true, true,
       0::smallint, null
from counted_tasks
where finished
