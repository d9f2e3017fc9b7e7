-- As they are once they are locked.
select id, task_id, worker_template, state::text as "state!", settled, remaining, succeeded, failed,
       max_failed
from tasker.batches
where task_id = any($1::uuid[])
order by id
for no key update
