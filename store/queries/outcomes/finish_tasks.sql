-- The first error of the task's own steps explains it best; else what was kept when a batch failed.
update tasker.tasks t
set state = f.state::tasker.task_state,
    finished_at = clock_timestamp(),
    error = case when f.state <> 'complete' then coalesce(
        (select o.error
         from tasker.steps s
         join tasker.outcomes o on o.step_id = s.id
         where s.task_id = t.id and s.batch_id is null and o.state = 'error'
         order by o.created_at
         limit 1),
        t.error) end
from unnest($1::uuid[], $2::text[]) as f(id, state)
where t.id = f.id and t.finished_at is null
