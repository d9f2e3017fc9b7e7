-- Every row of a task that is no member, with what its state does not tell. The last failed attempt is
-- of use only while the next one is waited for.
select s.name, s.kind::text as "kind!", s.state::text as "live_state!", s.unsettled, s.attempt,
       s.sent_seq >= s.dispatch_seq as "published!", s.run_after,
       s.lease_worker, s.lease_until, coalesce(s.lease_until < now(), false) as "lease_expired!",
       w.name as "worker_name?", w.last_beat_at as "last_beat_at?",
       o.state::text as "outcome?", coalesce(o.error, f.error)::text as error,
       case when s.kind = 'decision' and o.state in ('complete', 'resolved_manually')
            then coalesce((o.result -> 'decision_point_outcome')::text, 'null') end as choice
from tasker.steps s
left join lateral (
    select o.state, o.error, o.result from tasker.outcomes o where o.step_id = s.id offset 0
) o on true
left join lateral (
    select f.error from tasker.failed_attempts f
    where f.step_id = s.id and s.state = 'waiting_for_retry'
    order by f.attempt desc limit 1
) f on true
left join tasker.workers w on w.id = s.lease_worker and w.namespace = s.namespace
where s.task_id = $1 and s.batch_id is null
