select s.task_id, s.namespace, t.template_id, s.id, s.name, s.kind::text as "kind!", s.unsettled,
       o.state::text as "outcome?",
       case when s.kind = 'decision' and o.state in ('complete', 'resolved_manually')
            then coalesce((o.result -> 'decision_point_outcome')::text, 'null') end as choice
from tasker.steps s
join tasker.tasks t on t.id = s.task_id and t.finished_at is null
left join tasker.outcomes o on o.step_id = s.id
where s.task_id = any($1::uuid[]) and s.batch_id is null
order by s.id
