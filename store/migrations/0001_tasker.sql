-- Schema of Tasker. Every rule about states lives in the crate `workflow`; what stands here ties
-- rows together and keeps impossible ones out.

create schema tasker;

create type tasker.task_state as enum (
    'pending', 'in_progress', 'blocked_by_failures', 'complete', 'error', 'cancelled',
    'resolved_manually');
create type tasker.step_kind as enum (
    'standard', 'decision', 'batchable', 'batch_worker', 'deferred_convergence');
-- A step's own column; once it has ended, its state is that of its outcome.
create type tasker.live_state as enum ('pending', 'enqueued', 'in_progress', 'waiting_for_retry');
create type tasker.outcome_state as enum ('complete', 'error', 'cancelled', 'resolved_manually');
create type tasker.batch_state as enum ('expanding', 'sealed', 'converged', 'failed', 'cancelled');

create table tasker.templates (
    id uuid primary key,
    namespace text not null,
    name text not null,
    version text not null,
    -- major, minor, patch, and 0 for a pre-release: sorts as versions do
    version_order int[] not null,
    description text,
    source text not null,
    created_at timestamptz not null default now(),
    unique (namespace, name, version)
);

create table tasker.tasks (
    id uuid primary key,
    namespace text not null,
    template_id uuid not null references tasker.templates (id),
    state tasker.task_state not null default 'pending',
    priority smallint not null default 0 check (priority between -100 and 100),
    context json not null,
    idempotency_key text,
    request_hash bytea not null,
    initiator text,
    source_system text,
    reason text,
    tags json not null default '[]',
    correlation_id text,
    parent_correlation_id text,
    -- steps that are ready, run, wait for a retry, or whose end is not yet settled; an open batch
    -- counts as one
    active_steps int not null check (active_steps >= 0),
    -- steps of the template that wait for others, whether or not they have a row yet
    pending_steps int not null check (pending_steps >= 0),
    failed_steps int not null default 0 check (failed_steps >= 0),
    error json,
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    check ((finished_at is not null) = (state not in ('pending', 'in_progress')))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

create unique index tasks_idempotency_key on tasker.tasks (namespace, idempotency_key)
    where idempotency_key is not null;
create index tasks_live on tasker.tasks (id) where finished_at is null;

-- No foreign keys from here to tasks or batches: the share locks that every insert would take on
-- one hot row cost more than they keep out; ids are made by the same transaction.
create table tasker.steps (
    id uuid primary key,
    task_id uuid not null,
    namespace text not null,
    name text not null,
    kind tasker.step_kind not null,
    state tasker.live_state not null,
    -- fences results: rises with every claim and every retry
    attempt int not null default 1 check (attempt > 0),
    -- identifies messages: rises with every decision to send
    dispatch_seq int not null default 1 check (dispatch_seq > 0),
    -- the last dispatch that is known to be on the bus; members of a batch start as sent, since
    -- batches.published_upto says how far they are
    sent_seq int not null default 0,
    -- charged against the template's max_attempts
    tries int not null default 0 check (tries >= 0),
    pending_parents int not null default 0 check (pending_parents >= 0),
    -- its end is looked at by another transaction (expansion or convergence), which takes it out
    -- of the task's count
    unsettled boolean not null default false,
    claim_required boolean not null default false,
    -- members of a batch only; the ordinal is in the id
    batch_id uuid,
    cursor json,
    -- not for members: the batch has it
    queue text,
    lease_worker uuid,
    lease_until timestamptz,
    run_after timestamptz,
    enqueued_at timestamptz,
    created_at timestamptz not null default now(),
    check ((batch_id is not null) = (kind = 'batch_worker')),
    check ((state = 'waiting_for_retry') = (run_after is not null))
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02);

create unique index steps_of_task on tasker.steps (task_id, name) where batch_id is null;
create index steps_unsent on tasker.steps (enqueued_at)
    where state = 'enqueued' and sent_seq < dispatch_seq;
create index steps_retrying on tasker.steps (run_after) where state = 'waiting_for_retry';
create index steps_unsettled on tasker.steps (id) where unsettled;

-- The child waits for success of the parent.
create table tasker.step_edges (
    parent_id uuid not null,
    child_id uuid not null,
    primary key (parent_id, child_id)
);

create table tasker.batches (
    id uuid primary key,
    task_id uuid not null,
    namespace text not null,
    batchable_step_id uuid not null unique,
    worker_template text not null,
    queue text not null,
    priority smallint not null,
    is_no_op boolean not null default false,
    state tasker.batch_state not null,
    expected int not null check (expected > 0),
    expanded_upto int not null default 0,
    published_upto int not null default 0,
    -- the orchestrator that publishes the members, until when unless it renews
    publisher uuid,
    publisher_until timestamptz,
    remaining int not null,
    succeeded int not null default 0,
    failed int not null default 0,
    -- nothing is left to do for this batch
    settled boolean not null default false,
    created_at timestamptz not null default now(),
    touched_at timestamptz not null default now(),
    sealed_at timestamptz,
    converged_at timestamptz,
    check (published_upto <= expanded_upto and expanded_upto <= expected),
    check (remaining >= 0 and succeeded >= 0 and failed >= 0),
    check (remaining + succeeded + failed <= expected),
    check (state not in ('sealed', 'converged') or expanded_upto = expected),
    check (state <> 'converged' or remaining = 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

create index batches_of_task on tasker.batches (task_id);
create index batches_open on tasker.batches (id) where not settled;

-- A step's outcome: inserted once, never updated.
create table tasker.outcomes (
    step_id uuid primary key,
    state tasker.outcome_state not null,
    attempt int not null,
    result json,
    error json,
    worker uuid,
    execution_ms int not null default 0,
    created_at timestamptz not null default clock_timestamp(),
    check ((state = 'complete') = (result is not null))
) with (autovacuum_vacuum_insert_scale_factor = 0.5);

-- Append-only: attempts that did not end their step.
create table tasker.failed_attempts (
    step_id uuid not null,
    attempt int not null,
    namespace text not null,
    error json not null,
    worker uuid,
    execution_ms int not null default 0,
    created_at timestamptz not null default clock_timestamp(),
    primary key (step_id, attempt)
);

-- Cursors that an analyzer appended while it ran.
create table tasker.cursor_pages (
    step_id uuid not null,
    attempt int not null,
    page int not null,
    cursors json not null,
    count int not null,
    -- cursors in this page and those before it
    total int not null,
    last_batch_id text not null,
    last_end bigint,
    primary key (step_id, attempt, page)
);

-- Append-only: what people did by hand.
create table tasker.admin_actions (
    id bigint generated always as identity primary key,
    namespace text not null,
    task_id uuid not null,
    step_id uuid,
    action text not null,
    principal text not null,
    reason text,
    created_at timestamptz not null default clock_timestamp()
);

-- Messages that cannot be worked off: nothing that was carried is lost.
create table tasker.dead_letters (
    id bigint generated always as identity primary key,
    namespace text not null,
    subject text not null,
    payload bytea not null,
    error json not null,
    created_at timestamptz not null default clock_timestamp()
);

create table tasker.workers (
    id uuid not null,
    namespace text not null,
    name text not null,
    build text not null,
    queues json not null,
    callables text[] not null,
    draining boolean not null,
    last_beat_at timestamptz not null default now(),
    primary key (id, namespace)
);

-- One row per incarnation of the stream of work items.
create table tasker.bus_epochs (
    stream_created_ns bigint primary key,
    state text not null check (state in ('open', 'done')),
    seen_at timestamptz not null default clock_timestamp(),
    done_at timestamptz
);
