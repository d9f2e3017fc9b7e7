-- Who may use the HTTP API. Of a token only the hash of its secret is kept: whoever reads this table
-- cannot use what is in it. Rows stay when a token is revoked, so that the audit trail can be read.
create table tasker.api_tokens (
    id uuid primary key,
    name text not null,
    -- SHA-256 of 32 random bytes, which needs neither salt nor a slow function
    hash bytea not null check (octet_length(hash) = 32),
    role text not null check (role in ('viewer', 'submitter', 'operator', 'admin')),
    -- null is every namespace
    namespaces text[] check (cardinality(namespaces) > 0),
    created_by text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz
);

-- The audit trail names tokens: one name, one token at a time.
create unique index api_tokens_name on tasker.api_tokens (name) where revoked_at is null;
