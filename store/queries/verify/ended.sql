-- I8: nothing is stuck between living and ended. $2: everything has come to its end, so that nothing
-- may be open any more.
with wrong as (
    select t.id, 'it is open, and none of its steps is' as what
    from tasker.tasks t
    where t.finished_at is null and t.active_steps = 0
    union all
    select s.id, format('it is %s, and its task %s has ended %s', s.state, t.id, t.state)
    from tasker.tasks t
    join tasker.steps s on s.task_id = t.id and s.batch_id is null
    where t.finished_at is not null and s.state <> 'pending'
      and not exists (select from tasker.outcomes o where o.step_id = s.id)
    union all
    select s.id, format('its batch %s is done with, and it has not ended', b.id)
    from tasker.batches b
    join tasker.steps s on s.batch_id = b.id
    where b.settled and b.sealed_at is not null
      and not exists (select from tasker.outcomes o where o.step_id = s.id)
    union all
    select t.id, format('the task is %s, with %s active and %s pending steps', t.state,
                        t.active_steps, t.pending_steps)
    from tasker.tasks t
    where $2 and t.finished_at is null
    union all
    select b.id, format('the batch is %s and not done with, %s members remain', b.state, b.remaining)
    from tasker.batches b
    where $2 and not b.settled
    union all
    select s.id, 'nobody has looked at how the step ended'
    from tasker.steps s
    where $2 and s.unsettled and exists (select from tasker.outcomes o where o.step_id = s.id)
    union all
    select '00000000-0000-0000-0000-000000000000'::uuid,
           format('the stream made at %s ns has not got everything again', e.stream_created_ns)
    from tasker.bus_epochs e
    where $2 and e.state <> 'done'
)
select id as "id!", what as "what!", count(*) over () as "total!"
from wrong
order by id
limit $1
