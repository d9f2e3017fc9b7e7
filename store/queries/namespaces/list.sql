-- One page of namespaces with their open tasks, each counted by the index of open tasks, and the
-- limits of their queues.
select n.name, n.description, n.max_open_tasks, n.max_running, t.open_tasks as "open_tasks!",
       q.queues as "queues!: Vec<String>", q.limits as "limits!: Vec<i32>"
from (
    select name, description, max_open_tasks, max_running from tasker.namespaces
    where ($1::text[] is null or name = any($1)) and ($2::text is null or name > $2)
    order by name limit $3
) n
cross join lateral (
    select count(*) as open_tasks from tasker.tasks
    where namespace = n.name and finished_at is null
) t
cross join lateral (
    select coalesce(array_agg(queue order by queue), '{}') as queues,
           coalesce(array_agg(max_running order by queue), '{}') as limits
    from tasker.queue_limits where namespace = n.name
) q
order by n.name
