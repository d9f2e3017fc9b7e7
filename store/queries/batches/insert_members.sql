insert into tasker.steps
    (id, task_id, namespace, name, kind, state, sent_seq, batch_id, cursor, enqueued_at)
select id, task_id, namespace, name, 'batch_worker', 'enqueued', 1, batch_id, cursor::json, now()
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::text[])
     as m(id, task_id, namespace, batch_id, name, cursor)
