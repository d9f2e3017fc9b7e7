with input as (
    select * from unnest($2::uuid[], $3::int[], $4::float8[], $5::text[], $6::uuid[], $7::int[],
                         $8::int[])
        as i(step_id, attempt, delay_s, error, worker, execution_ms, charge)
), moved as (
    update tasker.steps s
    set state = 'waiting_for_retry',
        attempt = s.attempt + 1,
        dispatch_seq = s.dispatch_seq + 1,
        tries = s.tries + i.charge,
        claim_required = false,
        run_after = now() + make_interval(secs => i.delay_s),
        lease_worker = null,
        lease_until = null
    from input i
    where s.id = i.step_id and s.namespace = $1 and s.attempt = i.attempt
    returning s.id, i.attempt, i.error, i.worker, i.execution_ms, i.charge
), kept as (
    insert into tasker.failed_attempts (step_id, attempt, namespace, error, worker, execution_ms)
    -- Of workers without the handler the first is kept: a step may meet them for days.
    select id, attempt, $1, error::json, worker, execution_ms from moved m
    where m.charge = 1
       or not exists (select from tasker.failed_attempts f
                      where f.step_id = m.id and f.error ->> 'error_type' = 'unserved')
)
select id from moved
