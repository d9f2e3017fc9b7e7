-- Steps that are not members come first, ordered by id; then the members. A cursor that belongs to
-- a member is past all of the former.
with cursor_row as (
    select coalesce((select batch_id is not null from tasker.steps where id = $2), false) as in_members
), others as (
    select s.*, 0 as part from tasker.steps s, cursor_row c
    where s.task_id = $1 and s.batch_id is null
      and not c.in_members
      and ($2::uuid is null or s.id > $2)
    order by s.id
    limit $3
), members as (
    select s.*, 1 as part
    from cursor_row c, tasker.batches b
    cross join lateral (
        select * from tasker.steps m
        where m.id between (left(b.id::text, 28) || '00000000')::uuid
                       and (left(b.id::text, 28) || 'ffffffff')::uuid
          and m.id > coalesce(case when c.in_members then $2 end,
                              '00000000-0000-0000-0000-000000000000')
        order by m.id
        limit $3
    ) s
    where b.task_id = $1 and b.sealed_at is not null
    order by s.id
    limit $3
)
select s.id as "id!", s.name as "name!", s.kind::text as "kind!", s.state::text as "live_state!",
       s.unsettled as "unsettled!", s.attempt as "attempt!", s.batch_id, s.cursor::text as cursor,
       b.is_no_op as "is_no_op?", b.worker_template as "worker_template?", o.state::text as outcome, o.attempt as "outcome_attempt?",
       o.result::text as result, o.error::text as error, o.worker, o.execution_ms as "execution_ms?",
       o.created_at as "ended_at?", c.cursor::text as checkpoint_cursor,
       c.items_processed as "checkpoint_items?", c.created_at as "checkpoint_at?"
from (select * from others union all select * from members order by part, id limit $3) s
left join tasker.batches b on b.id = s.batch_id
left join tasker.outcomes o on o.step_id = s.id
left join tasker.checkpoints c on c.step_id = s.id
order by s.part, s.id
