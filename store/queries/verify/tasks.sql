-- I4: the counters of a task are what its steps and batches add up to. Steps that have no row yet are
-- counted elsewhere, with the template. Those of a task that was stopped stay as they were.
with own as (
    select s.task_id,
           count(*) filter (where s.unsettled and o.state is not null
                               or s.state <> 'pending' and o.state is null) as active,
           count(*) filter (where o.state = 'error') as failed
    from tasker.steps s
    left join tasker.outcomes o on o.step_id = s.id
    where s.batch_id is null
    group by s.task_id
), joined as (
    select task_id, count(*) filter (where sealed_at is not null and not settled) as active,
           count(*) filter (where settled and state = 'failed') as failed
    from tasker.batches
    group by task_id
), counted as (
    select t.*, coalesce(o.active, 0) + coalesce(b.active, 0) as active,
           coalesce(o.failed, 0) + coalesce(b.failed, 0) as failed
    from tasker.tasks t
    left join own o on o.task_id = t.id
    left join joined b on b.task_id = t.id
    where t.state <> 'cancelled' and t.stale_at is null
), wrong as (
    select id, format('it counts %s active and %s failed steps; there are %s and %s',
                      active_steps, failed_steps, active, failed) as what
    from counted
    where (active_steps, failed_steps) <> (active, failed)
)
select id as "id!", what as "what!", count(*) over () as "total!"
from wrong
order by id
limit $1
