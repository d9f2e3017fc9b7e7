-- I4: the counters of a batch are what its members' outcomes add up to. Of tasks that are being removed
-- some are gone.
with counted as (
    select s.batch_id, count(*) filter (where o.state in ('complete', 'resolved_manually')) as good,
           count(*) filter (where o.state = 'error') as bad,
           count(*) filter (where o.state is null) as open
    from tasker.steps s
    left join tasker.outcomes o on o.step_id = s.id
    where s.batch_id is not null
    group by s.batch_id
), wrong as (
    select b.id, format('it counts %s succeeded, %s failed, %s remaining; its members are %s, %s, %s',
                        b.succeeded, b.failed, b.remaining, c.good, c.bad, c.open) as what
    from tasker.batches b
    join counted c on c.batch_id = b.id
    where b.sealed_at is not null and (b.succeeded, b.failed, b.remaining) <> (c.good, c.bad, c.open)
      and not exists (select from tasker.expired_tasks e where e.task_id = b.task_id)
    union all
    select b.id, format('it is %s and done with, and %s members remain', b.state, b.remaining)
    from tasker.batches b
    where b.settled and b.sealed_at is not null and b.remaining > 0
    union all
    select b.id, format('it is converged, with %s of %s succeeded', b.succeeded, b.expected)
    from tasker.batches b
    where b.state = 'converged' and (b.succeeded = 0 or b.failed > b.max_failed)
)
select id as "id!", what as "what!", count(*) over () as "total!"
from wrong
order by id
limit $1
