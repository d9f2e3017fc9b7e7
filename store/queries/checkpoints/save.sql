-- The steps are locked. A step that has ended, and an attempt that is not the current one, give no row.
-- The history keeps the last twenty places, without what was accumulated there.
with current as (
    select s.id, i.attempt, i.cursor::json as cursor, i.items, i.accumulated::json as accumulated
    from (
        select * from unnest($2::uuid[], $3::int[], $4::text[], $5::bigint[], $6::text[])
            as i(step_id, attempt, cursor, items, accumulated)
        order by step_id
    ) i
    cross join lateral (
        select id from tasker.steps
        where id = i.step_id and namespace = $1 and attempt = i.attempt
          and state in ('enqueued', 'in_progress')
          and not exists (select from tasker.outcomes o where o.step_id = steps.id)
    ) s
), saved as (
    insert into tasker.checkpoints as c
        (step_id, attempt, cursor, items_processed, accumulated, history)
    select id, attempt, cursor, items, accumulated,
           jsonb_build_array(jsonb_build_object('cursor', cursor, 'items_processed', items,
                                                'attempt', attempt, 'at', clock_timestamp()))
    from current
    on conflict (step_id) do update
    set attempt = excluded.attempt,
        cursor = excluded.cursor,
        items_processed = excluded.items_processed,
        accumulated = excluded.accumulated,
        created_at = clock_timestamp(),
        history = case when jsonb_array_length(c.history) >= 20
                       then c.history - 0 else c.history end || excluded.history
    where c.items_processed < excluded.items_processed
    returning c.step_id
)
-- The same checkpoint again is an answer that was lost.
select id as "id!", attempt as "attempt!",
       (id in (select step_id from saved)) is true
       or exists (select from tasker.checkpoints c
                  where c.step_id = id and c.attempt = current.attempt
                    and c.items_processed = current.items) as "saved!"
from current
