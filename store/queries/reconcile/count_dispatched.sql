-- Members: what is published less what has ended, less those that wait for a retry or are about to
-- be sent again (both are partial indexes). Other steps are counted one by one; there are few per
-- live task. Messages are counted as the fewest that can have brought these steps.
with held_back as (
    select batch_id, count(*) as steps
    from (
        select batch_id from tasker.steps
        where state = 'waiting_for_retry' and batch_id is not null
        union all
        select batch_id from tasker.steps
        where state = 'enqueued' and sent_seq < dispatch_seq and batch_id is not null
    ) as h
    group by batch_id
), members as (
    select namespace, queue, bundled, sum(steps) as steps
    from (
        select id, namespace, queue, bundled, published_upto - succeeded - failed as steps
        from tasker.batches
        where not settled and state = 'sealed'
        union all
        select b.id, b.namespace, b.queue, b.bundled, -h.steps
        from held_back h
        cross join lateral (
            select id, namespace, queue, bundled from tasker.batches
            where id = h.batch_id and not settled and state = 'sealed'
            offset 0
        ) b
    ) m
    group by id, namespace, queue, bundled
), others as (
    select s.namespace, s.queue, 1 as bundled, 1 as steps
    from tasker.tasks t
    cross join lateral (
        select * from tasker.steps where task_id = t.id and batch_id is null offset 0
    ) s
    left join lateral (
        select step_id from tasker.outcomes where step_id = s.id offset 0
    ) o on true
    where t.finished_at is null
      and s.state in ('enqueued', 'in_progress')
      and s.sent_seq = s.dispatch_seq
      and o.step_id is null
)
select namespace as "namespace!", queue as "queue!", sum(steps)::bigint as "outstanding!",
       sum(greatest(0, ceil(steps::numeric / bundled)))::bigint as "messages!",
       max(bundled)::int as "bundled!"
from (select * from members union all select * from others) as all_steps
group by namespace, queue
