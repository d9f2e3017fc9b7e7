-- What is left after steps were deleted: the batches $1 have no member any more, the tasks $2 nothing at
-- all. Of the task $3 members are gone up to $4.
with emptied as (
    delete from tasker.batches where id = any($1::uuid[])
), reached as (
    update tasker.expired_tasks set purged_upto = $4 where task_id = $3
)
delete from tasker.expired_tasks where task_id = any($2::uuid[])
