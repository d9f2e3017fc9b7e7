insert into tasker.tasks
    (id, namespace, template_id, priority, context, idempotency_key, request_hash, initiator,
     source_system, reason, tags, correlation_id, parent_correlation_id, active_steps,
     pending_steps)
select id, namespace, template_id, priority, context::json, idempotency_key, request_hash,
       initiator, source_system, reason, tags::json, correlation_id, parent_correlation_id,
       active_steps, pending_steps
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::smallint[], $5::text[], $6::text[],
            $7::bytea[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
            $13::text[], $14::int[], $15::int[])
     as t(id, namespace, template_id, priority, context, idempotency_key, request_hash, initiator,
          source_system, reason, tags, correlation_id, parent_correlation_id, active_steps,
          pending_steps)
on conflict do nothing
returning id
