with locked as (
    select id from tasker.batches where id = any($1::uuid[]) order by id for no key update
)
update tasker.batches b
set published_upto = d.upto, publisher_until = now() + make_interval(secs => $5)
from unnest($1::uuid[], $2::int[], $3::int[]) as d(id, "from", upto)
join locked on locked.id = d.id
where b.id = d.id and b.publisher = $4 and b.published_upto = d."from" and b.state = 'sealed'
returning b.id
