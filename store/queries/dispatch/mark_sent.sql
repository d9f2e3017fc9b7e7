with locked as (
    select s.id, d.seq
    from (select * from unnest($1::uuid[], $2::int[]) as d(id, seq) order by id) d
    cross join lateral (select id from tasker.steps where id = d.id for no key update) s
)
update tasker.steps s
set sent_seq = l.seq
from locked l
where s.id = l.id and s.sent_seq < l.seq
