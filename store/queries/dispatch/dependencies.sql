select s.task_id, s.name, o.state::text as "state!",
       coalesce(octet_length(o.result::text), 0) as "bytes!",
       case when octet_length(o.result::text) <= $3 then o.result::text end as result,
       o.error ->> 'message' as error
from (select distinct * from unnest($1::uuid[], $2::text[]) as w(task_id, name)) w
join tasker.steps s on s.task_id = w.task_id and s.name = w.name and s.batch_id is null
join tasker.outcomes o on o.step_id = s.id
