select coalesce(sum(greatest(q.slots - q.busy, 0)), 0)::bigint as "free!"
from tasker.workers w
cross join lateral json_to_recordset(w.queues) as q(queue text, slots int, busy int)
where w.namespace = $1
  and q.queue = $2
  and not w.draining
  and w.last_beat_at > now() - make_interval(secs => $3)
