-- I3: a sealed batch has exactly its members. Ordinals differ because ids do, so that as many as there
-- should be, from 0 on, are all of them. Of tasks that are being removed some are gone.
with members as (
    select batch_id, count(*) as rows, min(('x' || right(id::text, 8))::bit(32)::bigint) as lowest,
           max(('x' || right(id::text, 8))::bit(32)::bigint) as highest,
           count(*) filter (where left(id::text, 28) <> left(batch_id::text, 28)) as strangers
    from tasker.steps
    where batch_id is not null
    group by batch_id
), wrong as (
    select b.id, format('%s members from %s to %s are there, and %s from 0 on are declared',
                        coalesce(m.rows, 0), m.lowest, m.highest, b.expected) as what
    from tasker.batches b
    left join members m on m.batch_id = b.id
    where b.sealed_at is not null
      and (m.rows is distinct from b.expected or m.lowest <> 0 or m.highest <> b.expected - 1)
      and not exists (select from tasker.expired_tasks e where e.task_id = b.task_id)
    union all
    select b.id, format('%s members up to %s are written, and %s are declared', m.rows, m.highest,
                        b.expected)
    from tasker.batches b
    join members m on m.batch_id = b.id
    where b.sealed_at is null and m.highest >= b.expected
    union all
    select m.batch_id, format('%s members of a batch that is not there', m.rows)
    from members m
    where not exists (select from tasker.batches b where b.id = m.batch_id)
    union all
    select m.batch_id, format('%s members with ids that are not derived from its own', m.strangers)
    from members m
    where m.strangers > 0
)
select id as "id!", what as "what!", count(*) over () as "total!"
from wrong
order by id
limit $1
