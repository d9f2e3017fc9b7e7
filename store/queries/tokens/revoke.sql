-- Revokes a token, named by id or by the name that it has until then, and records who did it. One that
-- was revoked before stays as it is.
with revoked as (
    update tasker.api_tokens set revoked_at = now()
    where revoked_at is null and (id = $1 or name = $2)
    returning *
), audited as (
    insert into tasker.admin_actions (namespace, action, principal, reason)
    select '*', 'revoke_token', $3, 'token ' || name || ' (' || id || ')' from revoked
), found as (
    select * from revoked
    union all
    select * from tasker.api_tokens where id = $1 and not exists (select from revoked)
)
select id as "id!", name as "name!", role as "role!", namespaces, created_by as "created_by!",
       created_at as "created_at!", expires_at as "expires_at!", revoked_at,
       expires_at <= now() as "expired!"
from found
