-- I2: steps that began before what they wait for had ended. A convergence has no row before; any other
-- step waits for the success of its parents. What a cancellation ended never began.
with edges as (
    select c.id as child, c.kind as child_kind, c.state as child_state, c.created_at as made_at,
           co.state as child_end, co.created_at as child_ended_at,
           p.id as parent, p.unsettled as parent_unsettled,
           po.state as parent_end, po.created_at as parent_ended_at
    from tasker.step_edges e
    join tasker.steps c on c.id = e.child_id
    join tasker.steps p on p.id = e.parent_id
    left join tasker.outcomes co on co.step_id = c.id
    left join tasker.outcomes po on po.step_id = p.id
), wrong as (
    select child as id, format('it exists, and its parent %s has not ended', parent) as what
    from edges
    where child_kind = 'deferred_convergence' and parent_end is null
    union all
    select child, format('it was made at %s, before its parent %s ended at %s', made_at, parent,
                         parent_ended_at)
    from edges
    where child_kind = 'deferred_convergence' and parent_end <> 'cancelled'
      and made_at < parent_ended_at
    union all
    select child, format('it is ready or has run, and its parent %s has not succeeded', parent)
    from edges
    where child_kind <> 'deferred_convergence'
      and (child_state <> 'pending' or child_end in ('complete', 'error'))
      and (parent_unsettled or parent_end is null
           or parent_end not in ('complete', 'resolved_manually'))
    union all
    select child, format('it ended at %s, before its parent %s ended at %s', child_ended_at, parent,
                         parent_ended_at)
    from edges
    where child_end in ('complete', 'error') and child_ended_at < parent_ended_at
)
select id as "id!", what as "what!", count(*) over () as "total!"
from wrong
order by id
limit $1
