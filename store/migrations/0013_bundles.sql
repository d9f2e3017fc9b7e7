-- How many members at most one message of a batch has brought, so that rows can be compared with messages.
alter table tasker.batches add column bundled smallint not null default 1 check (bundled > 0);
