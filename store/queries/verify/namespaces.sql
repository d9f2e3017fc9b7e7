-- I11: everything of a task is in the namespace of its task.
with wrong as (
    select t.id, format('it is in %s, and its template in %s', t.namespace, p.namespace) as what
    from tasker.tasks t
    join tasker.templates p on p.id = t.template_id
    where p.namespace <> t.namespace
    union all
    select s.id, format('the step is in %s, and its task in %s', s.namespace, t.namespace)
    from tasker.steps s
    join tasker.tasks t on t.id = s.task_id
    where s.namespace <> t.namespace
    union all
    select b.id, format('the batch is in %s, and its task in %s', b.namespace, t.namespace)
    from tasker.batches b
    join tasker.tasks t on t.id = b.task_id
    where b.namespace <> t.namespace
    union all
    select f.step_id, format('attempt %s is in %s, and its step in %s', f.attempt, f.namespace,
                             s.namespace)
    from tasker.failed_attempts f
    join tasker.steps s on s.id = f.step_id
    where s.namespace <> f.namespace
)
select id as "id!", what as "what!", count(*) over () as "total!"
from wrong
order by id
limit $1
