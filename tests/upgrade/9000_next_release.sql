-- What a next release might add, for `make upgrade`: columns of the tables that all nodes work with, with and
-- without a value, and a table.
alter table tasker.steps
    add column next_note text,
    add column next_weight int not null default 1 check (next_weight > 0);
alter table tasker.tasks add column next_note text;
alter table tasker.batches add column next_limit int;
alter table tasker.outcomes add column next_note json;
create table tasker.next_notes (
    step_id uuid primary key,
    note text not null
);
alter type tasker.batch_state add value 'next_state';
