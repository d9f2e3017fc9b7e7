update tasker.steps s
set dispatch_seq = s.dispatch_seq + 1, state = 'enqueued', claim_required = true,
    enqueued_at = now() - interval '1 minute', lease_worker = null, lease_until = null
where s.id = any($1::uuid[])
  and s.namespace = $2
  and s.state in ('enqueued', 'in_progress')
  and s.sent_seq = s.dispatch_seq
  and (s.lease_until is null or s.lease_until < now())
  and not exists (select from tasker.outcomes o where o.step_id = s.id)
returning s.id
