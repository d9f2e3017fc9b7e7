-- Tasks behind $1 up to $2, at most $3 in the order of their ids, and which of them ended $4 seconds ago
-- or earlier. Those are locked; what somebody else has locked is passed over. By the primary key: there is
-- no index on when tasks end, since each end would pay for it.
select seen.id as "id!", ended.id is not null as "over!"
from (select id from tasker.tasks where id > $1 and id <= $2 order by id limit $3) seen
left join lateral (
    select id from tasker.tasks
    where id = seen.id and finished_at <= now() - make_interval(secs => $4)
    for update skip locked
) ended on true
order by seen.id
