-- Tasks with their steps and edges: one statement, and so a transaction of its own. Steps and edges
-- are inserted for the tasks that are new: membership is looked up in a hash table, since a join would
-- compare each step with each task.
with created as (
    insert into tasker.tasks
        (id, namespace, template_id, priority, context, idempotency_key, request_hash, initiator,
         source_system, reason, tags, correlation_id, parent_correlation_id, active_steps,
         pending_steps, check_at)
    select id, namespace, template_id, priority, context::json, idempotency_key, request_hash,
           initiator, source_system, reason, tags::json, correlation_id, parent_correlation_id,
           active_steps, pending_steps, now() + make_interval(secs => review_ms / 1000.0)
    from unnest($1::uuid[], $2::text[], $3::uuid[], $4::smallint[], $5::text[], $6::text[],
                $7::bytea[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
                $13::text[], $14::int[], $15::int[], $29::float8[], $30::text[])
         as t(id, namespace, template_id, priority, context, idempotency_key, request_hash,
              initiator, source_system, reason, tags, correlation_id, parent_correlation_id,
              active_steps, pending_steps, review_ms, assumed)
    -- A task whose template was assumed to be the newest of its name is not stored if it is not.
    where assumed is null
       or template_id = (select p.id from tasker.templates p
                         where p.namespace = t.namespace and p.name = t.assumed
                         order by p.version_order desc, p.version desc limit 1)
    on conflict do nothing
    returning id
), new_steps as (
    insert into tasker.steps
        (id, task_id, namespace, name, kind, state, pending_parents, children, unsettled, queue,
         enqueued_at)
    select id, task_id, namespace, name, kind::tasker.step_kind,
           case when ready then 'enqueued' else 'pending' end::tasker.live_state,
           pending_parents, children, unsettled, queue, case when ready then now() end
    from unnest($16::uuid[], $17::uuid[], $18::text[], $19::text[], $20::text[], $21::boolean[],
                $22::int[], $23::int[], $24::boolean[], $25::text[])
         as s(id, task_id, namespace, name, kind, ready, pending_parents, children, unsettled,
              queue)
    where (task_id in (select id from created)) is true
), new_edges as (
    insert into tasker.step_edges (parent_id, child_id)
    select parent_id, child_id
    from unnest($26::uuid[], $27::uuid[], $28::uuid[]) as e(task_id, parent_id, child_id)
    where (task_id in (select id from created)) is true
)
select id from created
