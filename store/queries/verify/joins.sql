-- I2: convergences ($1) made before a member of a batch that they join ($2) had ended. By the primary
-- key: ids of members lie behind the id of their batch.
select j.id as "id!",
       format('it was made at %s; member %s of the batch %s that it joins ended at %s',
              j.created_at, late.step_id, d.batch, late.created_at) as "what!",
       count(*) over () as "total!"
from unnest($1::uuid[], $2::uuid[]) as d(id, batch)
join tasker.steps j on j.id = d.id
cross join lateral (
    select o.step_id, o.created_at
    from tasker.outcomes o
    where o.step_id between (left(d.batch::text, 28) || '00000000')::uuid
                        and (left(d.batch::text, 28) || 'ffffffff')::uuid
      and o.created_at > j.created_at
    order by o.created_at desc
    limit 1
) late
order by j.id
