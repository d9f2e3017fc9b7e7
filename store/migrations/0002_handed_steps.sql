-- A ready step may be handed to the worker that ended its last parent: it is leased and on no stream.
-- If that worker is silent until the lease ends, the sweep for unpublished steps finds it, also when
-- it was already running.
drop index tasker.steps_unsent;
create index steps_unsent on tasker.steps (enqueued_at)
    where state in ('enqueued', 'in_progress') and sent_seq < dispatch_seq;

-- How many edges lead from a step. Whoever stores its outcome sees by this whether a transaction that
-- was still under way when the edges were read has added some.
alter table tasker.steps add column children int not null default 0 check (children >= 0);
update tasker.steps s
set children = e.children
from (select parent_id, count(*) as children from tasker.step_edges group by parent_id) e
where s.id = e.parent_id;

-- The first error of the task's own steps explains its end best. It is kept when it happens: whoever
-- ends the task may have begun before and cannot see the outcome.
alter table tasker.tasks add column step_error json;
update tasker.tasks t
set step_error = (select o.error
                  from tasker.steps s
                  join tasker.outcomes o on o.step_id = s.id
                  where s.task_id = t.id and s.batch_id is null and o.state = 'error'
                  order by o.created_at
                  limit 1)
where t.finished_at is null and t.failed_steps > 0;
