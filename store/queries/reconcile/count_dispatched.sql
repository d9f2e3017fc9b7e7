-- Members: what is published less what has ended, less those that wait for a retry or are about to
-- be sent again (both are partial indexes). Other steps are counted one by one; there are few per
-- live task.
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
    select b.namespace, b.queue,
           b.published_upto - b.succeeded - b.failed - coalesce(h.steps, 0) as outstanding
    from tasker.batches b
    left join held_back h on h.batch_id = b.id
    where not b.settled and b.state = 'sealed'
), others as (
    select s.namespace, s.queue, 1 as outstanding
    from tasker.tasks t
    join tasker.steps s on s.task_id = t.id and s.batch_id is null
    where t.finished_at is null
      and s.state in ('enqueued', 'in_progress')
      and s.sent_seq = s.dispatch_seq
      and not exists (select from tasker.outcomes o where o.step_id = s.id)
)
select namespace as "namespace!", queue as "queue!", sum(outstanding)::bigint as "outstanding!"
from (select * from members union all select * from others) as all_steps
group by namespace, queue
