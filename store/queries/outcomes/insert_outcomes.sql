-- The fence: an outcome is inserted only where the attempt is the current one and the step is live.
-- `for share` waits for whoever is about to raise the attempt, and holds up whoever comes later.
with input as (
    select * from unnest($2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::uuid[],
                         $8::int[])
        as i(step_id, attempt, kind, result, error, worker, execution_ms)
), locked as materialized (
    select s.id, s.task_id, s.batch_id, s.kind, s.state, s.attempt, s.dispatch_seq, s.unsettled,
           s.queue
    from tasker.steps s
    where s.id = any($2::uuid[]) and s.namespace = $1
    order by s.id
    for share
), inserted as (
    insert into tasker.outcomes (step_id, state, attempt, result, error, worker, execution_ms)
    select i.step_id,
           case when i.error is null then 'complete' else 'error' end::tasker.outcome_state,
           i.attempt, i.result::json, i.error::json, i.worker, i.execution_ms
    from input i
    join locked l on l.id = i.step_id
    where l.attempt = i.attempt
      and l.kind = i.kind::tasker.step_kind
      and l.state in ('enqueued', 'in_progress')
    order by i.step_id
    on conflict (step_id) do nothing
    returning step_id
)
select l.id, l.task_id, l.batch_id, l.kind::text as "kind!", l.attempt, l.dispatch_seq,
       l.unsettled, l.queue, l.state in ('enqueued', 'in_progress') as "live!",
       (i.step_id is not null) as "applied!",
       (i.step_id is null
        and exists (select from tasker.outcomes o where o.step_id = l.id)) as "ended_before!"
from locked l
left join inserted i on i.step_id = l.id
