select c.task_id as "task_id!"
from (
    select b.task_id from tasker.batches b
    where not b.settled and b.state in ('sealed', 'failed') and b.remaining = 0
    union
    select s.task_id from tasker.steps s
    -- By key: there are few unsettled steps among very many outcomes.
    cross join lateral (
        select o.state from tasker.outcomes o where o.step_id = s.id offset 0
    ) o
    where s.unsettled and (s.kind <> 'batchable' or o.state <> 'complete')
) c
join tasker.tasks t on t.id = c.task_id and t.state in ('pending', 'in_progress')
order by c.task_id
limit $1
