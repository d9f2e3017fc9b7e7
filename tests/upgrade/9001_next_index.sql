-- no-transaction
-- An index of a table that is written to all the time.
create index concurrently steps_next on tasker.steps (next_weight, id) where next_note is not null;
