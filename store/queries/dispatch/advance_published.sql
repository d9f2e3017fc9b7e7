with locked as (
    select b.id, d.upto, d.bundled
    from (
        select * from unnest($1::uuid[], $2::int[], $3::int[], $6::int[])
            as d(id, "from", upto, bundled)
        order by id
    ) d
    cross join lateral (
        select id from tasker.batches
        where id = d.id and publisher = $4 and published_upto = d."from" and state = 'sealed'
        for no key update
    ) b
)
update tasker.batches b
set published_upto = l.upto, publisher_until = now() + make_interval(secs => $5),
    bundled = greatest(b.bundled, l.bundled)
from locked l
where b.id = l.id
returning b.id
