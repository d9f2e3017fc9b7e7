with chosen as (
    -- Also from this node itself: it has let go of the batch, and does not know how far it came. But what it
    -- has sealed or published a moment ago is on its way to whoever publishes it, unless it is named. That
    -- moment is longer than members are published from memory.
    select id, publisher is not null as taken_over, publisher <> $2 as from_another
    from tasker.batches
    where not settled
      and state = 'sealed'
      and published_upto < expected
      and ($1::uuid[] is null or id = any($1::uuid[]))
      and (publisher is null
           or publisher = $2 and ($1 is not null or publisher_until < now() + make_interval(secs => $3::double precision - 0.5))
           or publisher_until < now())
    order by id
    limit $4
    for no key update skip locked
)
update tasker.batches b
set publisher = $2, publisher_until = now() + make_interval(secs => $3)
from chosen c
where b.id = c.id
returning b.id, b.task_id, b.namespace, b.queue, b.priority, b.worker_template, b.expected,
          b.published_upto, b.succeeded + b.failed as "ended!", b.parallelism,
          c.taken_over as "taken_over!", coalesce(c.from_another, false) as "from_another!"
