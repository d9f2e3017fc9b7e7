-- Rows of one task that wait or are known to run, and for how long. Of batches, members that run or
-- wait for a retry; those that are ready are on their way. No more rows than a look can hold.
with listed as (
    select s.* from tasker.steps s
    where s.task_id = $1 and s.batch_id is null
      and s.state in ('pending', 'in_progress', 'waiting_for_retry')
    union all
    select m.*
    from tasker.batches b
    cross join lateral (
        select * from tasker.steps m
        where m.id between (left(b.id::text, 28) || '00000000')::uuid
                       and (left(b.id::text, 28) || 'ffffffff')::uuid
          and m.state in ('in_progress', 'waiting_for_retry')
        offset 0
    ) m
    where b.task_id = $1 and b.state = 'sealed' and not b.settled
)
select s.id as "id!", s.name as "name!", s.kind::text as "kind!", s.state::text as "state!",
       s.attempt as "attempt!", coalesce(b.worker_template, s.name) as "template_step!",
       s.lease_worker, coalesce(s.lease_until < now(), true) as "silent!",
       (extract(epoch from now() - case s.state
            when 'pending' then greatest(s.created_at, (select clock_from from tasker.tasks
                                                         where id = $1))
            when 'waiting_for_retry' then (select max(f.created_at) from tasker.failed_attempts f
                                           where f.step_id = s.id)
            else coalesce(s.started_at, s.enqueued_at) end) * 1000)::bigint as "since_ms?"
from listed s
left join tasker.batches b on b.id = s.batch_id
where not exists (select from tasker.outcomes o where o.step_id = s.id)
order by s.id
limit 10000
