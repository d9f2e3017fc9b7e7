insert into tasker.batches
    (id, task_id, namespace, batchable_step_id, worker_template, queue, priority, is_no_op, expected,
     remaining, expanded_upto, max_failed, isolates, parallelism, state)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, 0, $10, $11, $12, 'expanding')
on conflict (batchable_step_id) do nothing
