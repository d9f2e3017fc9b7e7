-- I4: a pending step waits for as many parents as have not succeeded, and a parent knows how many
-- children it has. A parent whose end is still looked at has not succeeded for them.
with parents as (
    select e.child_id as id,
           count(*) filter (where p.unsettled or o.state is null
                               or o.state not in ('complete', 'resolved_manually')) as open
    from tasker.step_edges e
    join tasker.steps p on p.id = e.parent_id
    left join tasker.outcomes o on o.step_id = p.id
    group by e.child_id
), children as (
    select parent_id as id, count(*) as edges from tasker.step_edges group by parent_id
), wrong as (
    select s.id, format('it waits for %s parents, and %s have not succeeded', s.pending_parents,
                        coalesce(p.open, 0)) as what
    from tasker.steps s
    join tasker.tasks t on t.id = s.task_id
    left join parents p on p.id = s.id
    where s.batch_id is null and s.state = 'pending'
      and t.state <> 'cancelled' and t.stale_at is null
      and s.pending_parents <> coalesce(p.open, 0)
    union all
    select s.id, format('it knows of %s children, and has %s', s.children, coalesce(c.edges, 0))
    from tasker.steps s
    left join children c on c.id = s.id
    where s.batch_id is null and s.children <> coalesce(c.edges, 0)
)
select id as "id!", what as "what!", count(*) over () as "total!"
from wrong
order by id
limit $1
