-- How many members of a batch may be on the bus or running, or wait for a retry, at a time.
alter table tasker.batches add column parallelism int check (parallelism > 0);
