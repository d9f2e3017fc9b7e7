select s.task_id, s.namespace, t.template_id, t.priority, s.id, s.name, s.kind::text as "kind!", s.unsettled,
       o.state::text as "outcome?",
       case when s.kind = 'decision' and o.state in ('complete', 'resolved_manually')
            then coalesce((o.result -> 'decision_point_outcome')::text, 'null') end as choice
from tasker.steps s
-- $2: also those of tasks that have ended.
join tasker.tasks t on t.id = s.task_id and (t.finished_at is null or $2)
-- Each outcome by its key, whatever the planner thinks of how many steps there are.
left join lateral (
    select o.state, o.result from tasker.outcomes o where o.step_id = s.id offset 0
) o on true
where s.task_id = any($1::uuid[]) and s.batch_id is null
order by s.id
