-- All rows are locked by the caller.
with ended as (
    insert into tasker.outcomes (step_id, state, attempt)
    select s.id, 'cancelled', s.attempt
    from tasker.steps s
    where s.task_id = $1 and s.batch_id is null
    order by s.id
    on conflict do nothing
    returning step_id
), parked as (
    update tasker.steps s
    set state = 'pending', run_after = null, unsettled = false
    where s.task_id = $1 and s.batch_id is null
), stopped as (
    update tasker.batches
    set state = 'cancelled', touched_at = now()
    where task_id = $1 and not settled
), noted as (
    insert into tasker.admin_actions (namespace, task_id, action, principal, reason)
    select namespace, id, 'cancel_task', $2, $3 from tasker.tasks where id = $1
)
update tasker.tasks set state = 'cancelled', finished_at = clock_timestamp() where id = $1
