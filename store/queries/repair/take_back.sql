-- Removes steps and all that belongs to them: what a convergence has made of something that is to run
-- again. They come back under new ids when their parents have ended anew, so that no message and no
-- result of before can be taken for one of theirs. What they were stands in the audit trail.
--
-- $1 are the steps, members among them, $2 the batches, $3 the task.
with edges as (
    delete from tasker.step_edges
    where parent_id in (select id from tasker.steps where task_id = $3 and batch_id is null)
      and (parent_id = any($1::uuid[]) or child_id = any($1::uuid[]))
    returning parent_id
), fewer as (
    update tasker.steps s set children = s.children - e.children
    from (select parent_id, count(*)::int as children from edges
          where parent_id <> all($1::uuid[]) group by parent_id) e
    where s.id = e.parent_id
), attempts as (
    delete from tasker.failed_attempts where step_id = any($1::uuid[])
), checkpoints as (
    delete from tasker.checkpoints where step_id = any($1::uuid[])
), pages as (
    delete from tasker.cursor_pages where step_id = any($1::uuid[])
), ends as (
    delete from tasker.outcomes where step_id = any($1::uuid[])
), batches as (
    delete from tasker.batches where id = any($2::uuid[])
)
delete from tasker.steps where id = any($1::uuid[])
