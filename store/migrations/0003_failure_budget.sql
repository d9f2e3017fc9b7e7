-- How many members of a batch may fail; one more, and it is stopped: its state becomes `failed` while
-- members remain, which then get their outcomes as those of a cancelled batch do.
alter table tasker.batches
    add column max_failed int,
    -- each failed member opens a dead letter
    add column isolates boolean not null default false;
update tasker.batches set max_failed = expected;
alter table tasker.batches
    alter column max_failed set not null,
    add check (max_failed between 0 and expected),
    add check (state <> 'sealed' or failed <= max_failed);

-- A dead letter is an enqueued message that was refused (subject and payload), or a member of a batch
-- that failed and was set aside (its step).
alter table tasker.dead_letters
    alter column subject drop not null,
    alter column payload drop not null,
    add column task_id uuid,
    add column step_id uuid,
    add column attempt int,
    add check ((step_id is null) = (payload is not null));
create unique index dead_letters_of_step on tasker.dead_letters (step_id, attempt)
    where step_id is not null;
