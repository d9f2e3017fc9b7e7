-- How far a step has come. A table of its own: steps are many and narrow, checkpoints are few, may be
-- large, and are written over and over.
create table tasker.checkpoints (
    step_id uuid primary key,
    attempt int not null,
    cursor json not null,
    items_processed bigint not null check (items_processed >= 0),
    accumulated json not null,
    -- the last places, without what was accumulated
    history jsonb not null,
    created_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
