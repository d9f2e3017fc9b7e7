-- Rows are found by key, each by itself: a plan that was made while the tables were small would read all
-- of an index later.
select w.task_id as "task_id!", w.name as "name!", o.state::text as "state!",
       coalesce(octet_length(o.result::text), 0) as "bytes!",
       case when octet_length(o.result::text) <= $3 then o.result::text end as result,
       o.error ->> 'message' as error
from (select distinct * from unnest($1::uuid[], $2::text[]) as w(task_id, name)) w
cross join lateral (
    select id from tasker.steps
    where task_id = w.task_id and name = w.name and batch_id is null
    offset 0
) s
cross join lateral (
    select state, result, error from tasker.outcomes where step_id = s.id offset 0
) o
