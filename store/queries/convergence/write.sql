-- Settles batches, and creates steps with their edges. Whoever does it has locked the batches, and all
-- steps of their tasks.
with settled as (
    update tasker.batches b
    set state = d.state::tasker.batch_state, settled = true, converged_at = clock_timestamp()
    from unnest($1::uuid[], $2::text[]) as d(id, state)
    where b.id = d.id and b.state in ('sealed', 'failed') and b.remaining = 0 and not b.settled
    returning b.id
), created as (
    insert into tasker.steps
        (id, task_id, namespace, name, kind, state, pending_parents, children, unsettled, queue,
         enqueued_at, created_at)
    select id, task_id, namespace, name, kind::tasker.step_kind,
           case when ready then 'enqueued' else 'pending' end::tasker.live_state,
           pending_parents, children, unsettled, queue, case when ready then now() end,
           -- Not the time of the transaction: what a convergence waits for may have ended while it
           -- waited for locks, and `tasker verify` compares the two.
           clock_timestamp()
    from unnest($3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::boolean[],
                $9::int[], $10::int[], $11::boolean[], $12::text[])
         as s(id, task_id, namespace, name, kind, ready, pending_parents, children, unsettled, queue)
    on conflict (task_id, name) where batch_id is null do nothing
    returning id
), edges as (
    insert into tasker.step_edges (parent_id, child_id)
    select * from unnest($13::uuid[], $14::uuid[])
    on conflict do nothing
    returning parent_id
), parents as (
    -- Those that were there before: a step that is created here comes with its count.
    update tasker.steps s
    set children = s.children + e.children
    from (select parent_id, count(*)::int as children from edges group by parent_id) e
    where s.id = e.parent_id
)
select 'batch' as "what!", id as "id!" from settled
union all
select 'step', id from created
