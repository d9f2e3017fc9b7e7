-- The fence: an outcome is inserted only where the attempt is the current one and the step is live.
-- `for share` waits for whoever is about to raise the attempt, and holds up whoever comes later.
--
-- The input is joined once, by key, and comes along: a second join of two sets that exist only here
-- has no index, and the planner may compare each row of one with each of the other. For the same
-- reason what was inserted follows as rows of its own, with an id and nothing else.
with locked as materialized (
    select s.id, s.task_id, s.batch_id, s.kind, s.state, s.attempt, s.dispatch_seq, s.unsettled,
           s.queue, i.attempt as reported_attempt, i.kind as reported_kind, i.result, i.error,
           i.worker, i.execution_ms
    from unnest($2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::int[])
        as i(step_id, attempt, kind, result, error, worker, execution_ms)
    join tasker.steps s on s.id = i.step_id and s.namespace = $1
    order by s.id
    for share of s
), inserted as (
    insert into tasker.outcomes (step_id, state, attempt, result, error, worker, execution_ms)
    select id, case when error is null then 'complete' else 'error' end::tasker.outcome_state,
           attempt, result::json, error::json, worker, execution_ms
    from locked
    where attempt = reported_attempt
      and kind = reported_kind::tasker.step_kind
      and state in ('enqueued', 'in_progress')
    on conflict (step_id) do nothing
    returning step_id
)
select id as "id!", task_id as "task_id?", batch_id as "batch_id?", kind::text as "kind?",
       attempt as "attempt?", dispatch_seq as "dispatch_seq?", unsettled as "unsettled?",
       queue as "queue?", state in ('enqueued', 'in_progress') as "live?"
from locked
union all
select step_id, null, null, null, null, null, null, null, null from inserted
