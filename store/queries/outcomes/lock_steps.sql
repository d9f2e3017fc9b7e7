select id from tasker.steps
where id = any($1::uuid[]) and namespace = $2
order by id
for no key update
