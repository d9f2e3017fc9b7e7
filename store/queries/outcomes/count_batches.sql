-- Batches are locked in the order of their ids, so that two transactions cannot wait for each other.
with locked as (
    select id from tasker.batches where id = any($1::uuid[]) order by id for no key update
)
update tasker.batches b
set remaining = b.remaining - d.succeeded - d.failed,
    succeeded = b.succeeded + d.succeeded,
    failed = b.failed + d.failed
from unnest($1::uuid[], $2::int[], $3::int[]) as d(id, succeeded, failed)
join locked on locked.id = d.id
where b.id = d.id
returning b.id, b.task_id, b.queue, b.remaining
