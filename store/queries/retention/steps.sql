-- Steps of the tasks $1 that are no members, at most $2.
select s.id as "id!"
from unnest($1::uuid[]) as t(id)
cross join lateral (
    select id from tasker.steps where task_id = t.id and batch_id is null order by name limit $2
) s
limit $2
