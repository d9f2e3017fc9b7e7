-- Whether the worker holds nothing any more, and since when somebody wants it to take nothing more.
-- The wish stays on the row, so that it is told again until the worker's heartbeats show it.
alter table tasker.workers
    add column drained boolean not null default false,
    add column drain_asked_at timestamptz;

-- How many steps workers may hold at a time, of all queues together; and which orchestrator shares that
-- among the queues, until when.
alter table tasker.namespaces
    add column max_running int check (max_running > 0),
    add column shared_by uuid,
    add column shared_until timestamptz;
