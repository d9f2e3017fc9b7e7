-- When a task is next looked at for limits of time; null if its template has none. `clock_from`: it was
-- repaired then, and its times begin anew. `overran_at`: it has passed a limit and goes on. `stale_at`:
-- it was ended by one.
alter table tasker.tasks
    add column check_at timestamptz,
    add column clock_from timestamptz,
    add column overran_at timestamptz,
    add column stale_at timestamptz;
create index tasks_to_check on tasker.tasks (check_at)
    where check_at is not null and finished_at is null;

-- Tasks that are there already are looked at once, which tells whether their templates have limits.
update tasker.tasks set check_at = now() where finished_at is null;

-- Since when the current attempt is known to run.
alter table tasker.steps add column started_at timestamptz;

-- Whether a worker has handlers that it does not list, because it finds them when they are asked for.
alter table tasker.workers add column resolves boolean not null default false;

-- A dead letter is a refused message, a member that was set aside, or a task that ran out of time. The
-- fingerprint is the same for errors that differ in numbers and ids alone.
alter table tasker.dead_letters
    drop constraint dead_letters_check,
    add column kind text not null generated always as (
        case when payload is not null then 'message'
             when step_id is not null then 'member'
             else 'task' end) stored,
    add column fingerprint text not null generated always as (
        left(md5((error ->> 'code') || ' ' || regexp_replace(
            error ->> 'message', '[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[0-9]+', '#', 'g')), 12)) stored,
    -- of a message: under which key it was carried, and where it stood in its stream
    add column idempotency_key text,
    add column place text unique,
    add column redriven_at timestamptz,
    -- the task that was made of it anew
    add column redriven_task uuid,
    add check (payload is not null or task_id is not null);
create index dead_letters_open on tasker.dead_letters (namespace, id) where redriven_at is null;

-- What was done to a message belongs to no task.
alter table tasker.admin_actions alter column task_id drop not null;
