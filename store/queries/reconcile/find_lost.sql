-- Of these batches alone, if some are named. The ids of members are those of the batch with the ordinal in the last eight hex digits.
with spans as (
    select (left(id::text, 28) || '00000000')::uuid as low,
           (left(id::text, 28) || lpad(to_hex(published_upto - 1), 8, '0'))::uuid as high
    from tasker.batches
    where not settled and state = 'sealed' and published_upto > 0
      and namespace = $1 and queue = $2
      and ($5::uuid[] is null or id = any($5::uuid[]))
), candidates as (
    select s.id
    from spans
    join tasker.steps s on s.id between spans.low and spans.high
    left join lateral (
        select step_id from tasker.outcomes where step_id = s.id offset 0
    ) o on true
    where s.state in ('enqueued', 'in_progress')
      and s.sent_seq = s.dispatch_seq
      and s.enqueued_at < now() - make_interval(secs => $3)
      and (s.lease_until is null or s.lease_until < now())
      and o.step_id is null
    union all
    select s.id
    from tasker.tasks t
    cross join lateral (
        select * from tasker.steps where task_id = t.id and batch_id is null offset 0
    ) s
    left join lateral (
        select step_id from tasker.outcomes where step_id = s.id offset 0
    ) o on true
    where $5::uuid[] is null
      and t.finished_at is null
      and s.namespace = $1 and s.queue = $2
      and s.state in ('enqueued', 'in_progress')
      and s.sent_seq = s.dispatch_seq
      and s.enqueued_at < now() - make_interval(secs => $3)
      and (s.lease_until is null or s.lease_until < now())
      and o.step_id is null
)
select id as "id!" from candidates order by id limit $4
