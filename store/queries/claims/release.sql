-- Whoever has begun it, or may have, leaves another attempt behind: also whoever has it again, when an
-- earlier request to give it back comes late.
update tasker.steps s
set dispatch_seq = s.dispatch_seq + 1,
    attempt = s.attempt + case when d.unstarted and s.attempt = d.attempt and s.dispatch_seq = d.seq
                               then 0 else 1 end,
    state = 'enqueued',
    enqueued_at = now() - interval '1 minute',
    claim_required = false,
    lease_worker = null,
    lease_until = null
from unnest($1::uuid[], $2::int[], $4::int[], $5::bool[]) as d(id, seq, attempt, unstarted)
where s.id = d.id
  and s.namespace = $3
  and (s.dispatch_seq = d.seq and s.attempt = d.attempt
       -- Or the one that a claim has just granted to this worker, which has not heard of it yet; or it was
       -- dispatched again, while this worker ran it.
       or (s.dispatch_seq = d.seq and s.attempt > d.attempt
           or s.dispatch_seq > d.seq and s.attempt = d.attempt)
          and s.lease_worker = $6 and s.lease_until > now())
  and s.state in ('enqueued', 'in_progress')
  and not exists (select from tasker.outcomes o where o.step_id = s.id)
returning s.id
