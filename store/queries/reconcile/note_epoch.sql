with known as (
    insert into tasker.bus_epochs (stream_created_ns, state) values ($1, 'open')
    on conflict (stream_created_ns) do update set state = bus_epochs.state
    returning state
)
select known.state as "state!",
       not exists (select from tasker.bus_epochs e where e.stream_created_ns <> $1) as "first!"
from known
