-- Takes finished tasks out of sight. The caller has locked them in a statement before, so that what is read
-- here of their batches and letters holds. A batch that is not settled has members that others still write
-- outcomes for; an open letter waits for somebody who wants to see the task. Both are looked up task by
-- task, whatever the planner thinks of how many there are.
with gone as (
    delete from tasker.tasks t
    where t.id = any($1::uuid[])
      and not exists (select from tasker.batches b
                      where b.task_id = t.id and b.settled is not true offset 0)
      and not exists (select from tasker.dead_letters d
                      where d.task_id = t.id and d.redriven_at is null offset 0)
    returning t.id, t.namespace
)
insert into tasker.expired_tasks (task_id, namespace)
select id, namespace from gone
