-- Members stand next to each other in the primary key, in the order of their ordinals.
select s.id as "id!", s.name as "name!", s.attempt as "attempt!", s.dispatch_seq as "dispatch_seq!",
       s.cursor::text as cursor, s.claim_required as "claim_required!"
from unnest($1::uuid[], $2::uuid[]) as span(low, high)
cross join lateral (
    select id, name, attempt, dispatch_seq, cursor, claim_required
    from tasker.steps
    where id between span.low and span.high and state = 'enqueued'
    order by id
) s
