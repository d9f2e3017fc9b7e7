-- I5: attempts and dispatches only rise, and nothing that had ended lives again but by somebody whose
-- name stands in the audit trail. An attempt that failed for good ends its step: where it is among
-- those that did not, the step was repaired.
with wrong as (
    select f.step_id as id, format('attempt %s has failed, and the current one is %s', f.attempt,
                                   s.attempt) as what
    from tasker.failed_attempts f
    join tasker.steps s on s.id = f.step_id
    where f.attempt >= s.attempt
    union all
    select f.step_id, format('attempt %s of a step that is not there', f.attempt)
    from tasker.failed_attempts f
    where not exists (select from tasker.steps s where s.id = f.step_id)
    union all
    select c.step_id, format('a checkpoint of attempt %s, and the current one is %s', c.attempt,
                             s.attempt)
    from tasker.checkpoints c
    left join tasker.steps s on s.id = c.step_id
    where s.id is null or c.attempt > s.attempt
    union all
    select s.id, format('dispatch %s was sent, and the current one is %s', s.sent_seq,
                        s.dispatch_seq)
    from tasker.steps s
    where s.sent_seq > s.dispatch_seq
    union all
    select f.step_id, format('attempt %s ended the step, and nobody is on record who repaired it',
                             f.attempt)
    from tasker.failed_attempts f
    join tasker.steps s on s.id = f.step_id
    where f.error ->> 'retryable' = 'false'
      and not exists (select from tasker.admin_actions a
                      where a.task_id = s.task_id and coalesce(a.step_id, s.id) in (s.id, s.batch_id))
)
select id as "id!", what as "what!", count(*) over () as "total!"
from wrong
order by id
limit $1
