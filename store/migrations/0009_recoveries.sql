-- Append-only: what the cluster has mended by itself, for whoever asks what happened. The last ones are kept.
create table tasker.recoveries (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    node uuid not null,
    kind text not null,
    namespace text,
    queue text,
    steps int not null default 0 check (steps >= 0)
);
