-- What should have gone on by itself: counted where it waits, with the longest wait and one that waits. The
-- limits are generous: each of these is looked for every second or so.
with late as (
    (select 'unsent' as kind, s.namespace, coalesce(b.queue, s.queue) as queue, s.enqueued_at as since,
            s.id
     from tasker.steps s
     join tasker.tasks t on t.id = s.task_id and t.finished_at is null
     left join tasker.batches b on b.id = s.batch_id
     where s.state in ('enqueued', 'in_progress') and s.sent_seq < s.dispatch_seq
       and s.enqueued_at < now() - interval '10 s'
       and (s.lease_until is null or s.lease_until < now() - interval '10 s')
       and (b.id is null or b.state = 'sealed')
       and not exists (select from tasker.outcomes o where o.step_id = s.id)
     order by s.enqueued_at limit $1)
    union all
    (select 'retry', s.namespace, coalesce(b.queue, s.queue), s.run_after, s.id
     from tasker.steps s
     join tasker.tasks t on t.id = s.task_id and t.finished_at is null
     left join tasker.batches b on b.id = s.batch_id
     where s.state = 'waiting_for_retry' and s.run_after < now() - interval '10 s'
     order by s.run_after limit $1)
    union all
    (select 'unpublished', b.namespace, b.queue, coalesce(b.publisher_until, b.sealed_at), b.id
     from tasker.batches b
     where not b.settled and b.state = 'sealed' and b.published_upto < b.expected
       and coalesce(b.publisher_until, b.sealed_at) < now() - interval '10 s'
     limit $1)
    union all
    (select 'unconverged', b.namespace, b.queue, b.touched_at, b.id
     from tasker.batches b
     where not b.settled and b.state = 'sealed' and b.remaining = 0
       and b.touched_at < now() - interval '30 s'
     limit $1)
    union all
    (select 'expanding', b.namespace, b.queue, b.touched_at, b.id
     from tasker.batches b
     where not b.settled and b.sealed_at is null and b.touched_at < now() - interval '30 s'
     limit $1)
    union all
    (select 'lease', s.namespace, coalesce(b.queue, s.queue), s.lease_until, s.id
     from tasker.tasks t
     join tasker.steps s on s.task_id = t.id
     left join tasker.batches b on b.id = s.batch_id
     where t.finished_at is null
       and s.state = 'in_progress' and s.lease_until < now() - interval '30 s'
       and not exists (select from tasker.outcomes o where o.step_id = s.id)
     limit $1)
)
select kind as "kind!", namespace as "namespace!", coalesce(queue, '') as "queue!",
       count(*) as "count!",
       coalesce(max(extract(epoch from now() - since)), 0)::float8 as "seconds!",
       (min(id::text))::uuid as "example!"
from late
group by kind, namespace, coalesce(queue, '')
order by 1, 2, 3
