-- One batch in numbers, from its members' rows. Read in one snapshot with the batch itself.
with members as (
    select s.id, s.attempt, s.cursor ->> 'batch_id' as batch_id,
           ('x' || right(s.id::text, 8))::bit(32)::bigint as ordinal,
           case when json_typeof(s.cursor -> 'start_cursor') = 'number'
                     and (s.cursor ->> 'start_cursor') ~ '^-?[0-9]{1,30}$'
                then (s.cursor ->> 'start_cursor')::numeric end as first,
           case when json_typeof(s.cursor -> 'end_cursor') = 'number'
                     and (s.cursor ->> 'end_cursor') ~ '^-?[0-9]{1,30}$'
                then (s.cursor ->> 'end_cursor')::numeric end as last
    from tasker.steps s
    where s.id between $2 and $3 and s.batch_id = $1
), neighbours as (
    select batch_id, first, last, max(last) over (order by first, last
                           rows between unbounded preceding and 1 preceding) as before
    from members
    where first is not null and last is not null
), breaks as (
    select batch_id, first, before from neighbours where first <> before order by first limit 20
), ends as (
    select count(*) filter (where o.state in ('complete', 'resolved_manually')) as succeeded,
           count(*) filter (where o.state = 'error') as failed,
           count(*) filter (where o.state = 'cancelled') as cancelled,
           count(*) filter (where m.id is null or o.attempt > m.attempt
                            or o.state = 'complete' and f.attempt is not null) as unfenced
    from tasker.outcomes o
    left join members m on m.id = o.step_id
    left join tasker.failed_attempts f on f.step_id = o.step_id and f.attempt = o.attempt
    where o.step_id between $2 and $3
)
select (select sealed_at is not null from tasker.batches where id = $1) as "sealed!",
       count(*) as "members!", count(*) filter (where m.ordinal < $4) as "in_range!",
       count(distinct m.batch_id) as "batch_ids!",
       count(*) filter (where m.first is not null and m.last is not null) as "ranges!",
       (select succeeded from ends) as "succeeded!", (select failed from ends) as "failed!",
       (select cancelled from ends) as "cancelled!", (select unfenced from ends) as "unfenced!",
       (select coalesce(json_agg(json_build_object(
            'batch_id', batch_id, 'start', first::text, 'end', before::text,
            'overlaps', first < before)), '[]')::text from breaks) as "breaks!"
from members m
