with due as (
    select id from tasker.steps
    where state = 'waiting_for_retry' and run_after <= now()
    order by run_after
    limit $1
    for no key update skip locked
)
update tasker.steps s
set state = 'enqueued', run_after = null, enqueued_at = now()
from due
where s.id = due.id
returning s.id
