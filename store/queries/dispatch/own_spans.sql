-- Asked before members are read for the first time: whoever reads them later than that, and publishes
-- them soon, knows that nobody published them long ago.
select b.id
from unnest($1::uuid[], $2::int[]) as d(id, "from")
cross join lateral (
    select id, publisher, published_upto from tasker.batches where id = d.id offset 0
) b
where b.publisher = $3 and b.published_upto = d."from"
