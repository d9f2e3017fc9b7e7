-- I6: the attempt that ended a step is the one that was current then, and stays it.
with wrong as (
    select o.step_id as id,
           format('attempt %s has ended the step, and the current one is %s', o.attempt, s.attempt)
               as what
    from tasker.outcomes o
    join tasker.steps s on s.id = o.step_id
    where o.attempt <> s.attempt
)
select id as "id!", what as "what!", count(*) over () as "total!"
from wrong
order by id
limit $1
