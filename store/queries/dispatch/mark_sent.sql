with locked as (
    select id from tasker.steps where id = any($1::uuid[]) order by id for no key update
)
update tasker.steps s
set sent_seq = d.seq
from unnest($1::uuid[], $2::int[]) as d(id, seq)
join locked on locked.id = d.id
where s.id = d.id and s.sent_seq < d.seq
