select t.id, t.namespace, p.name, p.version, t.state::text as "state!", t.created_at, t.finished_at
from tasker.tasks t
join tasker.templates p on p.id = t.template_id
where ($1::text[] is null or t.namespace = any($1))
  and ($2::text is null or t.state = $2::tasker.task_state)
  and ($3::uuid is null or t.id < $3)
order by t.id desc
limit $4
