update tasker.tasks t
set state = f.state::tasker.task_state,
    finished_at = clock_timestamp(),
    error = coalesce(t.step_error, t.error)
from unnest($1::uuid[], $2::text[]) as f(id, state)
where t.id = f.id and t.state in ('pending', 'in_progress')
