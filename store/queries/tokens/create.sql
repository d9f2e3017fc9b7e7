-- Makes a token unless there are as many as there may be, and records who did it. Nothing is locked:
-- two that are made at the same time may be one more, and one of two with the same name is refused by
-- the index.
with live as (
    select count(*) as tokens from tasker.api_tokens
    where revoked_at is null and expires_at > now()
), made as (
    insert into tasker.api_tokens (id, name, hash, role, namespaces, created_by, expires_at)
    select $1, $2, $3, $4, $5, $6, now() + make_interval(days => $7)
    from live where tokens < $8
    returning *
), audited as (
    insert into tasker.admin_actions (namespace, action, principal, reason)
    select '*', 'create_token', created_by,
           'token ' || name || ' (' || id || '): role ' || role || ', namespaces '
               || coalesce(array_to_string(namespaces, ','), '*')
    from made
)
select id, name, role, namespaces, created_by, created_at, expires_at, revoked_at,
       false as "expired!"
from made
