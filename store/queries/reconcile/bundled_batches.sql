select id, published_upto, succeeded + failed as "ended!"
from tasker.batches
where not settled
  and state = 'sealed'
  and bundled > 1
  and published_upto > succeeded + failed
  and namespace = $1
  and queue = $2
order by id
limit $3
