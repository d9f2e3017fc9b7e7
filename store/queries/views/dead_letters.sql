select id, kind, namespace, fingerprint, error ->> 'code' as code, error ->> 'message' as message,
       created_at, redriven_at, redriven_task, task_id, step_id, attempt, subject
from tasker.dead_letters
where ($1::bigint is null or id = $1)
  and ($2::text is null or namespace = $2)
  and ($3::text is null or kind = $3)
  and ($4::text is null or fingerprint = $4)
  and ($5::boolean is null or (redriven_at is not null) = $5)
  and ($6::bigint is null or id < $6)
  and ($8::text[] is null or namespace = any($8))
order by id desc
limit $7
