insert into tasker.batches
    (id, task_id, namespace, batchable_step_id, worker_template, queue, priority, is_no_op, expected,
     remaining, expanded_upto, max_failed, isolates, state, sealed_at)
select id, task_id, namespace, batchable_step_id, worker_template, queue, priority, is_no_op,
       expected, expected, case when $12 then expected else 0 end, max_failed, isolates,
       case when $12 then 'sealed' else 'expanding' end::tasker.batch_state,
       case when $12 then clock_timestamp() end
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::text[],
            $7::smallint[], $8::boolean[], $9::int[], $10::int[], $11::boolean[])
     as b(id, task_id, namespace, batchable_step_id, worker_template, queue, priority, is_no_op,
          expected, max_failed, isolates)
on conflict (batchable_step_id) do nothing
returning id
