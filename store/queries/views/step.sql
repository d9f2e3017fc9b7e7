select s.id as "id!", s.name as "name!", s.kind::text as "kind!", s.state::text as "live_state!",
       s.unsettled as "unsettled!", s.attempt as "attempt!", s.batch_id, s.cursor::text as cursor,
       b.is_no_op as "is_no_op?", b.worker_template as "worker_template?", o.state::text as outcome, o.attempt as "outcome_attempt?",
       o.result::text as result, o.error::text as error, o.worker, o.execution_ms as "execution_ms?",
       o.created_at as "ended_at?", c.cursor::text as checkpoint_cursor,
       c.items_processed as "checkpoint_items?", c.created_at as "checkpoint_at?"
from tasker.steps s
left join lateral (select * from tasker.batches b where b.id = s.batch_id offset 0) b on true
left join lateral (select * from tasker.outcomes o where o.step_id = s.id offset 0) o on true
left join lateral (select * from tasker.checkpoints c where c.step_id = s.id offset 0) c on true
where s.id = $1
