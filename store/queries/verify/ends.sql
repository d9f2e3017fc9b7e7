-- I1: outcomes that no transaction may have stored. That there is one for each step is its key.
with wrong as (
    select o.step_id as id, 'an outcome of a step that is not there' as what
    from tasker.outcomes o
    where not exists (select from tasker.steps s where s.id = o.step_id)
    union all
    select o.step_id, format('attempt %s has ended the step, and is among those that did not', o.attempt)
    from tasker.outcomes o
    join tasker.failed_attempts f on f.step_id = o.step_id and f.attempt = o.attempt
    union all
    select o.step_id, format('an outcome of a member of batch %s, which was never sealed', b.id)
    from tasker.outcomes o
    join tasker.steps s on s.id = o.step_id
    join tasker.batches b on b.id = s.batch_id
    where b.sealed_at is null
)
select id as "id!", what as "what!", count(*) over () as "total!"
from wrong
order by id
limit $1
