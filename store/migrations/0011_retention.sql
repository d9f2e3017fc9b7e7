-- Finished tasks that are being removed. They are in `tasks` no more, so that nobody finds them, while what
-- belongs to them is deleted chunk by chunk. A row goes when nothing of its task is left.
create table tasker.expired_tasks (
    task_id uuid primary key,
    namespace text not null,
    -- Members of its batches are gone up to this one. The index has them for a while yet, and whoever goes
    -- on does not read past all of them again.
    purged_upto uuid,
    expired_at timestamptz not null default clock_timestamp()
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
