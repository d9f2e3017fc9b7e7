insert into tasker.steps
    (id, task_id, namespace, name, kind, state, pending_parents, unsettled, queue, enqueued_at,
     created_at)
select id, task_id, namespace, name, kind::tasker.step_kind,
       case when ready then 'enqueued' else 'pending' end::tasker.live_state,
       pending_parents, unsettled, queue, case when ready then now() end,
       -- Not the time of the transaction: what a convergence waits for may have ended while it waited
       -- for locks, and `tasker verify` compares the two.
       clock_timestamp()
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::boolean[],
            $7::int[], $8::boolean[], $9::text[])
     as s(id, task_id, namespace, name, kind, ready, pending_parents, unsettled, queue)
on conflict (task_id, name) where batch_id is null do nothing
returning id
