-- Failed steps of a task with what is needed to judge a repair; of a batch that is retried as a whole,
-- members that were cancelled with it too. The caller has locked what is no member and a single step;
-- other members have ended, and nobody else changes them.
--
-- $2 is one step, $3 one batch; without either, everything of the task that failed. The ids of members
-- are those of the batch with the ordinal in the last eight hex digits.
with members as (
    select s.id
    from tasker.batches b
    cross join lateral (
        select m.id from tasker.steps m
        where m.id between (left(b.id::text, 28) || '00000000')::uuid
                       and (left(b.id::text, 28) || 'ffffffff')::uuid
          and m.batch_id = b.id
        offset 0
    ) s
    where b.task_id = $1 and b.sealed_at is not null and $2::uuid is null
      and ($3::uuid is null or b.id = $3)
      and (b.failed > 0 or b.state = 'failed')
), wanted as (
    select id from members
    union all
    select id from tasker.steps
    where task_id = $1 and batch_id is null and $2::uuid is null and $3::uuid is null
    union all
    select id from tasker.steps where id = $2 and task_id = $1
)
select s.id as "id!", s.name as "name!", s.kind::text as "kind!", s.state::text as "live_state!",
       s.attempt as "attempt!", s.unsettled as "unsettled!", s.batch_id as "batch_id?",
       coalesce(b.worker_template, s.name) as "template_step!", o.state::text as "outcome?",
       b.state::text as "batch_state?", b.settled as "batch_settled?",
       coalesce(b.failed > b.max_failed, false) as "batch_stopped!",
       b.published_upto as "published_upto?"
from wanted w
cross join lateral (select * from tasker.steps where id = w.id offset 0) s
left join lateral (select * from tasker.outcomes o where o.step_id = s.id offset 0) o on true
left join lateral (select * from tasker.batches b where b.id = s.batch_id offset 0) b on true
where $2::uuid is not null
   or o.state = 'error'
   or o.state = 'cancelled' and b.failed > b.max_failed
order by s.id
