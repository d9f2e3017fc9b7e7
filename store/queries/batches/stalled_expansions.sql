-- From the few unsettled steps to their outcomes, each by its key.
select s.id
from tasker.steps s
cross join lateral (
    select o.created_at from tasker.outcomes o
    where o.step_id = s.id and o.state = 'complete' offset 0
) o
join tasker.tasks t on t.id = s.task_id and t.state in ('pending', 'in_progress')
left join tasker.batches b on b.batchable_step_id = s.id
where s.unsettled and s.kind = 'batchable'
  and coalesce(b.touched_at, o.created_at) < now() - make_interval(secs => $1)
order by o.created_at
limit $2
