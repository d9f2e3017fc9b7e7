-- All tokens, the newest first. Revoked and expired ones only if they are asked for.
select id, name, role, namespaces, created_by, created_at, expires_at, revoked_at,
       expires_at <= now() as "expired!"
from tasker.api_tokens
where $1 or (revoked_at is null and expires_at > now())
order by id desc
limit $2
