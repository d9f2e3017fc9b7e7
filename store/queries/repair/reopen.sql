-- The one place beside retention where outcomes are removed: the attempt is kept among those that did
-- not end their step, and the caller writes who did it and why in the same transaction.
--
-- $3 are steps whose end another transaction looks at. $4 are members behind what their batch has
-- published: the batch sends them when it comes to them, as it does with members that never ran.
with ended as (
    delete from tasker.outcomes
    where step_id = any($1::uuid[])
    returning step_id, attempt, error, worker, execution_ms
), kept as (
    insert into tasker.failed_attempts (step_id, attempt, namespace, error, worker, execution_ms)
    select step_id, attempt, $2, error, worker, execution_ms from ended where error is not null
    on conflict do nothing
)
update tasker.steps s
set attempt = s.attempt + 1,
    dispatch_seq = s.dispatch_seq + 1,
    sent_seq = case when (s.id = any($4::uuid[])) then s.dispatch_seq + 1 else s.sent_seq end,
    tries = 0,
    state = 'enqueued',
    enqueued_at = now(),
    run_after = null,
    claim_required = false,
    lease_worker = null,
    lease_until = null,
    unsettled = s.id = any($3::uuid[])
from ended e
where s.id = e.step_id
returning s.id
