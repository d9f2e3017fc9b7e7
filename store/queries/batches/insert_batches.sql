insert into tasker.batches
    (id, task_id, namespace, batchable_step_id, worker_template, queue, priority, is_no_op, expected,
     remaining, expanded_upto, max_failed, isolates, parallelism, state,
     sealed_at, publisher, publisher_until)
select id, task_id, namespace, batchable_step_id, worker_template, queue, priority, is_no_op,
       expected, expected, case when $13 then expected else 0 end, max_failed, isolates,
       parallelism, case when $13 then 'sealed' else 'expanding' end::tasker.batch_state,
       case when $13 then clock_timestamp() end,
       $14::uuid, clock_timestamp() + make_interval(secs => $15::double precision)
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::text[],
            $7::smallint[], $8::boolean[], $9::int[], $10::int[], $11::boolean[],
            $12::int[])
     as b(id, task_id, namespace, batchable_step_id, worker_template, queue, priority, is_no_op,
          expected, max_failed, isolates, parallelism)
on conflict (batchable_step_id) do nothing
returning id
