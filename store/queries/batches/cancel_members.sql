with open as (
    select s.id, s.attempt from tasker.steps s
    where s.id between $1 and $2
      and s.batch_id is not null
      and not exists (select from tasker.outcomes o where o.step_id = s.id)
    order by s.id
    limit $3
    for no key update
), parked as (
    update tasker.steps s
    set state = 'pending', run_after = null
    from open
    where s.id = open.id and (s.state = 'waiting_for_retry' or s.sent_seq < s.dispatch_seq)
)
insert into tasker.outcomes (step_id, state, attempt)
select id, 'cancelled', attempt from open order by id
on conflict do nothing
returning step_id
