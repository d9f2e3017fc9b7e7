-- At least one member, then as many as fit into the byte limit.
with page as (
    select s.id, s.name, o.state, o.result, o.error,
           sum(coalesce(octet_length(o.result::text), 0) + coalesce(octet_length(o.error::text), 0))
               over (order by s.id) as bytes,
           row_number() over (order by s.id) as n
    from tasker.steps s
    join tasker.outcomes o on o.step_id = s.id
    where s.id between $1 and $2
)
select id, name, state::text as "state!", result::text as result, error::text as error
from page
where bytes <= $3 or n = 1
order by id
