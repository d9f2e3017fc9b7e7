-- At least one member, then as many as fit into the byte limit; and of how many, also where there is none.
with page as (
    select s.id, s.name, o.state, o.result, o.error,
           sum(coalesce(octet_length(o.result::text), 0) + coalesce(octet_length(o.error::text), 0))
               over (order by s.id) as bytes,
           row_number() over (order by s.id) as n
    from tasker.steps s
    join tasker.outcomes o on o.step_id = s.id
    where s.id between $1 and $2
)
select b.expected, p.id as "id?", p.name as "name?", p.state::text as "state?",
       p.result::text as result, p.error::text as error
from tasker.batches b
left join page p on p.bytes <= $3 or p.n = 1
where b.id = $4 and b.namespace = $5
order by p.id
