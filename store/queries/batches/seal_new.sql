-- Batches that are sealed from the beginning, with their members, and their analyzers, which are locked,
-- settled. A batch that is there already is left alone, and so are its analyzer and its members.
with sealed as (
    insert into tasker.batches
        (id, task_id, namespace, batchable_step_id, worker_template, queue, priority, is_no_op,
         expected, remaining, expanded_upto, max_failed, isolates, parallelism, state, sealed_at,
         publisher, publisher_until)
    select id, task_id, namespace, batchable_step_id, worker_template, queue, priority, is_no_op,
           expected, expected, expected, max_failed, isolates, parallelism, 'sealed',
           clock_timestamp(), $13::uuid,
           clock_timestamp() + make_interval(secs => $14::double precision)
    from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::text[],
                $7::smallint[], $8::boolean[], $9::int[], $10::int[], $11::boolean[], $12::int[])
         as b(id, task_id, namespace, batchable_step_id, worker_template, queue, priority,
              is_no_op, expected, max_failed, isolates, parallelism)
    on conflict (batchable_step_id) do nothing
    returning id, batchable_step_id
), members as (
    insert into tasker.steps
        (id, task_id, namespace, name, kind, state, sent_seq, batch_id, cursor, enqueued_at)
    select id, task_id, namespace, name, 'batch_worker', 'enqueued', 1, batch_id, cursor::json,
           now()
    from unnest($15::uuid[], $16::uuid[], $17::text[], $18::uuid[], $19::text[], $20::text[])
         as m(id, task_id, namespace, batch_id, name, cursor)
    where (batch_id in (select id from sealed)) is true
), settled as (
    update tasker.steps
    set unsettled = false
    where id = any($4::uuid[]) and unsettled
      and (id in (select batchable_step_id from sealed)) is true
    returning id, children
)
select batchable_step_id as "step!", id as "batch?", null::int as "children?" from sealed
union all
select id, null, children from settled
