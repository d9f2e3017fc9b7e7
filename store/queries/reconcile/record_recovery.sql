-- The last hundred thousand are kept.
with recorded as (
    insert into tasker.recoveries (node, kind, namespace, queue, steps)
    values ($1, $2, $3, $4, $5)
    returning id
)
delete from tasker.recoveries
where id <= (select id from recorded) - 100000
