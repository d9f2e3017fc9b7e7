with listed as (
    select s.* from tasker.steps s where s.task_id = $1 and s.batch_id is null
    union all
    select s.*
    from tasker.batches b
    join tasker.steps s
      on s.id between (left(b.id::text, 28) || '00000000')::uuid
                  and (left(b.id::text, 28) || 'ffffffff')::uuid
    where b.task_id = $1 and b.sealed_at is not null and b.expected <= $2
)
-- The outcome of each step by its key, whatever the planner thinks of how many steps there are: one
-- that joins by merging reads all outcomes there are.
select s.id as "id!", s.name as "name!", s.kind::text as "kind!", s.state::text as "live_state!",
       s.unsettled as "unsettled!", s.attempt as "attempt!", s.batch_id, s.cursor::text as cursor,
       b.is_no_op as "is_no_op?", b.worker_template as "worker_template?", o.state::text as outcome, o.attempt as "outcome_attempt?",
       o.result::text as result, o.error::text as error, o.worker, o.execution_ms as "execution_ms?",
       o.created_at as "ended_at?", c.cursor::text as checkpoint_cursor,
       c.items_processed as "checkpoint_items?", c.created_at as "checkpoint_at?"
from listed s
left join lateral (select * from tasker.batches b where b.id = s.batch_id offset 0) b on true
left join lateral (select * from tasker.outcomes o where o.step_id = s.id offset 0) o on true
left join lateral (select * from tasker.checkpoints c where c.step_id = s.id offset 0) c on true
order by s.id
