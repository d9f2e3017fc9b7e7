-- A step that has ended although its publication was never recorded leaves the index here. A step
-- that is leased was handed to a worker without being published.
with waiting as (
    select s.id, exists (select from tasker.outcomes o where o.step_id = s.id) as ended
    from tasker.steps s
    where s.state in ('enqueued', 'in_progress')
      and s.sent_seq < s.dispatch_seq
      and s.enqueued_at < now() - make_interval(secs => $1)
      and (s.lease_until is null or s.lease_until < now()
           or exists (select from tasker.outcomes o where o.step_id = s.id))
    order by s.enqueued_at
    limit $2
    for no key update of s skip locked
), recorded as (
    update tasker.steps s
    set sent_seq = s.dispatch_seq
    from waiting
    where s.id = waiting.id and waiting.ended
)
select id as "id!", ended as "ended!" from waiting
