select t.namespace, t.template_id, p.name, p.version, t.state::text as "state!", t.priority,
       t.error::text as error, t.stale_at is not null as "is_stale!", t.created_at, t.finished_at, t.context::text as "context!"
from tasker.tasks t
join tasker.templates p on p.id = t.template_id
where t.id = $1 and ($2::text is null or t.namespace = $2)
