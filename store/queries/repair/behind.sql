-- Steps that a cascading repair would take back, with the batch that one of them has made. The caller
-- holds locks on them.
select s.id as "id!", s.name as "name!", s.state::text as "live_state!", s.attempt as "attempt!",
       s.unsettled as "unsettled!", o.state::text as "outcome?",
       b.id as "batch_id?", b.settled as "batch_settled?", b.expected as "members?"
from tasker.steps s
left join lateral (select * from tasker.outcomes o where o.step_id = s.id offset 0) o on true
left join lateral (
    select * from tasker.batches b where b.batchable_step_id = s.id offset 0
) b on true
where s.id = any($1::uuid[])
order by s.id
