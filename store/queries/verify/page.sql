-- Tasks behind $1, with what only their templates can tell right or wrong: how many steps without a row
-- they count as waiting, and whether more should have come of what has ended.
select t.id as "id!", t.template_id as "template_id!", t.finished_at is not null as "ended!",
       t.state = 'cancelled' or t.stale_at is not null as "stopped!",
       t.pending_steps - (select count(*) from tasker.steps s
                          where s.task_id = t.id and s.batch_id is null and s.state = 'pending'
                            and not exists (select from tasker.outcomes o where o.step_id = s.id))
           as "rowless!"
from tasker.tasks t
where t.id > $1
order by t.id
limit $2
