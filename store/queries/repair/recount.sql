-- The counters of a task as its rows have them. $2 are steps that wait for others and have no row.
update tasker.tasks t
set active_steps = s.active + b.active, pending_steps = $2 + s.pending,
    failed_steps = s.failed + b.failed
from (
    select (count(*) filter (where s.unsettled and o.state is not null
                             or s.state <> 'pending' and o.state is null))::int as active,
           (count(*) filter (where s.state = 'pending' and o.state is null))::int as pending,
           (count(*) filter (where o.state = 'error'))::int as failed
    from tasker.steps s
    left join lateral (select o.state from tasker.outcomes o where o.step_id = s.id offset 0) o
        on true
    where s.task_id = $1 and s.batch_id is null
) s, (
    select (count(*) filter (where b.sealed_at is not null and not b.settled))::int as active,
           (count(*) filter (where b.settled and b.state = 'failed'))::int as failed
    from tasker.batches b where b.task_id = $1
) b
where t.id = $1
