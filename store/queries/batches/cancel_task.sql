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
    select namespace, id, $5, $2, $3 from tasker.tasks where id = $1
), kept as (
    insert into tasker.dead_letters (namespace, task_id, error)
    select namespace, id, $6::json from tasker.tasks where id = $1 and $7
)
update tasker.tasks
set state = ($4::text)::tasker.task_state, finished_at = clock_timestamp(),
    error = coalesce($6::json, error),
    stale_at = case when $6::json is not null then now() end
where id = $1
