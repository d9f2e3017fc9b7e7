-- Steps of tasks that are out of sight, with all that belongs to them. Edges go with the parent, which
-- counts them. What people did by hand and dead letters stay.
with ends as (
    delete from tasker.outcomes where step_id = any($1::uuid[])
), attempts as (
    delete from tasker.failed_attempts where step_id = any($1::uuid[])
), checkpoints as (
    delete from tasker.checkpoints where step_id = any($1::uuid[])
), pages as (
    delete from tasker.cursor_pages where step_id = any($1::uuid[])
), edges as (
    delete from tasker.step_edges where parent_id = any($1::uuid[])
)
delete from tasker.steps where id = any($1::uuid[])
