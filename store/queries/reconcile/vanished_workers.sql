-- A worker beats in a namespace while it has something to do there: alive is who is heard in any.
select exists (
    select from tasker.workers w
    where w.namespace = $1
      and not w.drained
      and w.last_beat_at between now() - make_interval(secs => $3) and now() - make_interval(secs => $2)
      and not exists (
          select from tasker.workers o
          where o.id = w.id and o.last_beat_at > now() - make_interval(secs => $2)
      )
) as "vanished!"
