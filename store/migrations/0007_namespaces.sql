-- Namespaces come with their first template, or when somebody sets their limits. A limit that is not
-- there does not exist.
create table tasker.namespaces (
    name text primary key,
    description text,
    -- tasks that may be open at a time
    max_open_tasks int check (max_open_tasks > 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
insert into tasker.namespaces (name) select distinct namespace from tasker.templates;

-- How many steps of a queue workers may hold at a time.
create table tasker.queue_limits (
    namespace text not null,
    queue text not null,
    max_running int not null check (max_running > 0),
    primary key (namespace, queue)
);

-- Open tasks are counted by namespace. Whoever goes through all of them reads this index as it read
-- the one on their ids alone.
create index tasks_open on tasker.tasks (namespace, id) where finished_at is null;
drop index tasker.tasks_live;
