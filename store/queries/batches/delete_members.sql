delete from tasker.steps
where id in (select id from tasker.steps
             where id between $1 and $2 and batch_id is not null order by id limit $3)
returning id
