-- no-transaction
-- Whether somebody has yet to decide about a task, which is not removed before that.
create index concurrently dead_letters_of_task on tasker.dead_letters (task_id)
    where task_id is not null and redriven_at is null;
