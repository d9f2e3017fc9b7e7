update tasker.steps s
set state = 'in_progress',
    started_at = case when s.state = 'in_progress' and s.lease_worker = $4 and s.started_at is not null
                      then s.started_at else now() end,
    lease_worker = $4, lease_until = now() + make_interval(secs => $5)
from unnest($1::uuid[], $2::int[]) as d(id, attempt)
where s.id = d.id
  and s.namespace = $3
  and s.attempt = d.attempt
  and s.state in ('enqueued', 'in_progress')
  and not exists (select from tasker.outcomes o where o.step_id = s.id)
returning s.task_id
