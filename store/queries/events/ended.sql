-- What is stored of attempts that ended: the outcome of each that ended its step, the failure of each
-- after which it went on. Only what exactly this worker, or nobody ($4 null), is on record for. A step
-- that stands for a batch without ranges is left out. Reads only; each row is found by its key.
--
-- A result over $5 bytes is left out, an error over that is without its context.
with input as (
    select * from unnest($2::uuid[], $3::int[], $4::uuid[]) as i(step_id, attempt, worker)
)
select s.id as "step_id!", s.name as "name!", s.task_id as "task_id!", i.attempt as "attempt!",
       coalesce(b.worker_template, s.name) as "template_step!", t.template_id as "template_id!",
       t.correlation_id, t.parent_correlation_id,
       o.state::text as "outcome?", coalesce(o.created_at, f.created_at) as "ended_at!",
       octet_length(o.result::text) as "result_bytes?",
       case when octet_length(o.result::text) <= $5 then o.result::text end as result,
       octet_length(coalesce(o.error, f.error)::text) as "error_bytes?",
       case when octet_length(coalesce(o.error, f.error)::text) <= $5
            then coalesce(o.error, f.error)::text
            else (coalesce(o.error, f.error)::jsonb - 'context')::text end as error
from input i
join tasker.steps s on s.id = i.step_id and s.namespace = $1
join tasker.tasks t on t.id = s.task_id
left join tasker.batches b on b.id = s.batch_id
left join tasker.outcomes o
    on o.step_id = i.step_id and o.attempt = i.attempt and o.worker is not distinct from i.worker
left join tasker.failed_attempts f
    on f.step_id = i.step_id and f.attempt = i.attempt and f.worker is not distinct from i.worker
where coalesce(o.step_id, f.step_id) is not null and b.is_no_op is not true
order by s.id, i.attempt
