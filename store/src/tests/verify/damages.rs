//! Damage to rows: the invariants that it breaks, what one of them says, whose id it takes, and the
//! statement.

type Damage = (&'static str, &'static str, &'static str, &'static str);

/// The schema itself keeps some of it out; a bug in a migration would not.
pub(super) const WITHOUT_CONSTRAINTS: &str = "
    drop index tasker.tasks_idempotency_key;
    do $$
    declare c record;
    begin
        for c in select conrelid::regclass as t, conname as n from pg_constraint
                 where connamespace = 'tasker'::regnamespace and contype in ('c', 'f') loop
            execute format('alter table %s drop constraint %I', c.t, c.n);
        end loop;
    end $$";

pub(super) const DAMAGES: [Damage; 40] = [
    // Outcomes.
    (
        "I1 I4 I8",
        "an outcome of a step that is not there",
        "done work_001",
        "update tasker.outcomes set step_id = gen_random_uuid() where step_id = $1",
    ),
    (
        "I1 I5",
        "attempt 1 has ended the step, and is among those",
        "done work_001",
        "insert into tasker.failed_attempts (step_id, attempt, namespace, error)
         select id, attempt, namespace, '{}' from tasker.steps where id = $1",
    ),
    (
        "I1",
        "which was never sealed",
        "writing work_001",
        "insert into tasker.outcomes (step_id, state, attempt, result)
         values ($1, 'complete', 1, '{}')",
    ),
    // Order.
    (
        "I2",
        "it exists, and its parent",
        "done left",
        "with o as (delete from tasker.outcomes where step_id = $1)
         update tasker.tasks set active_steps = 1, state = 'in_progress', finished_at = null
         where id = (select task_id from tasker.steps where id = $1)",
    ),
    (
        "I2",
        "before its parent",
        "done join",
        "update tasker.steps set created_at = created_at - interval '1 hour' where id = $1",
    ),
    (
        "I2",
        "that it joins ended at",
        "done work_002",
        "update tasker.outcomes set created_at = created_at + interval '1 hour' where step_id = $1",
    ),
    (
        "I2 I4",
        "it is ready or has run, and its parent",
        "mended analyze",
        "update tasker.steps set state = 'enqueued' where id = $1",
    ),
    (
        "I2",
        "it ended at",
        "done after",
        "update tasker.outcomes set created_at = created_at - interval '1 hour' where step_id = $1",
    ),
    (
        "I2 I4",
        "`right` exists, and nothing",
        "open left",
        "update tasker.steps set name = 'right' where id = $1",
    ),
    (
        "I2",
        "`join` exists, and nothing",
        "open task",
        "with t as (update tasker.tasks set active_steps = active_steps + 1,
                           pending_steps = pending_steps - 1 where id = $1)
         insert into tasker.steps (id, task_id, namespace, name, kind, state, queue)
         values (gen_random_uuid(), $1, 'tests', 'join', 'deferred_convergence', 'enqueued', 'q')",
    ),
    // Members.
    (
        "I3 I4",
        "2 members from 0 to 1 are there, and 3 from 0 on are declared",
        "open work_003",
        "delete from tasker.steps where id = $1",
    ),
    (
        "I3",
        "3 members from 0 to 7 are there, and 3 from 0 on are declared",
        "open work_003",
        "update tasker.steps set id = (left(id::text, 35) || '7')::uuid where id = $1",
    ),
    (
        "I3",
        "2 members up to 1 are written, and 1 are declared",
        "writing batch",
        "update tasker.batches set expected = 1, expanded_upto = 1 where id = $1",
    ),
    (
        "I3",
        "2 members of a batch that is not there",
        "writing batch",
        "delete from tasker.batches where id = $1",
    ),
    (
        "I3",
        "1 members with ids that are not derived from its own",
        "open work_003",
        "update tasker.steps set id = ('00000000' || substr(id::text, 9))::uuid where id = $1",
    ),
    // Counters.
    (
        "I4",
        "it counts 2 succeeded, 0 failed, 1 remaining; its members are 1, 0, 2",
        "open batch",
        "update tasker.batches set succeeded = 2, remaining = 1 where id = $1",
    ),
    (
        "I4 I8",
        "and done with, and 2 members remain",
        "open batch",
        "update tasker.batches set settled = true where id = $1",
    ),
    (
        "I2 I4",
        "it is converged, with 3 of 3 succeeded",
        "done batch",
        "update tasker.batches set failed = 4, max_failed = 3 where id = $1",
    ),
    (
        "I4",
        "it counts 3 active and 0 failed steps; there are 2 and 0",
        "open task",
        "update tasker.tasks set active_steps = active_steps + 1 where id = $1",
    ),
    (
        "I4",
        "it counts 2 active and 1 failed steps; there are 2 and 0",
        "open task",
        "update tasker.tasks set failed_steps = 1 where id = $1",
    ),
    (
        "I4",
        "waiting steps without a row; there are",
        "open task",
        "update tasker.tasks set pending_steps = pending_steps + 1 where id = $1",
    ),
    (
        "I4",
        "it waits for 2 parents, and 1 have not succeeded",
        "mended analyze",
        "update tasker.steps set pending_parents = 2 where id = $1",
    ),
    (
        "I4",
        "it knows of 9 children, and has 2",
        "done before",
        "update tasker.steps set children = 9 where id = $1",
    ),
    // Attempts.
    (
        "I5",
        "attempt 1 has failed, and the current one is 1",
        "open work_002",
        "update tasker.steps set attempt = 1 where id = $1",
    ),
    (
        "I5",
        "attempt 1 of a step that is not there",
        "open work_002",
        "update tasker.failed_attempts set step_id = gen_random_uuid() where step_id = $1",
    ),
    (
        "I5",
        "a checkpoint of attempt 9, and the current one is 1",
        "open work_003",
        "insert into tasker.checkpoints (step_id, attempt, cursor, items_processed, accumulated, history)
         values ($1, 9, '1', 1, '{}', '[]')",
    ),
    (
        "I5",
        "dispatch 5 was sent, and the current one is 1",
        "open left",
        "update tasker.steps set sent_seq = 5 where id = $1",
    ),
    (
        "I5",
        "nobody is on record who repaired it",
        "mended task",
        "delete from tasker.admin_actions where task_id = $1",
    ),
    (
        "I5",
        "3 tries of 2 were charged",
        "open work_003",
        "update tasker.steps set tries = 3 where id = $1",
    ),
    // The fence.
    (
        "I6",
        "attempt 1 has ended the step, and the current one is 2",
        "done left",
        "update tasker.steps set attempt = 2 where id = $1",
    ),
    // Acceptance.
    (
        "I7",
        "it has no step",
        "mended task",
        "insert into tasker.tasks (id, namespace, template_id, state, context, request_hash,
                                   active_steps, pending_steps, finished_at)
         select gen_random_uuid(), namespace, template_id, 'cancelled', '{}', '', 0, 0, now()
         from tasker.tasks where id = $1",
    ),
    (
        "I7",
        "a second task of the idempotency key k in tests",
        "open task",
        "update tasker.tasks set idempotency_key = 'k' where namespace = 'tests' and $1 is not null",
    ),
    (
        "I7",
        "which is not there",
        "stopped task",
        "delete from tasker.tasks where id = $1",
    ),
    // Ends.
    (
        "I4 I8",
        "it is open, and none of its steps is",
        "open task",
        "update tasker.tasks set active_steps = 0 where id = $1",
    ),
    (
        "I8",
        "and its task",
        "open task",
        "update tasker.tasks set state = 'complete', finished_at = now() where id = $1",
    ),
    (
        "I8",
        "never came to run",
        "done task",
        "with gone as (delete from tasker.steps where task_id = $1 and name in ('join', 'after')
                       returning id),
              ends as (delete from tasker.outcomes where step_id in (select id from gone)),
              edges as (delete from tasker.step_edges where child_id in (select id from gone)
                        returning parent_id),
              fewer as (update tasker.steps set children = children - 1
                        where id in (select parent_id from edges)
                          and id not in (select id from gone))
         update tasker.tasks set pending_steps = 2, state = 'blocked_by_failures' where id = $1",
    ),
    // Namespaces.
    (
        "I11",
        "and its template in other",
        "done task",
        "update tasker.templates set namespace = 'other' where $1 is not null",
    ),
    (
        "I11",
        "the step is in other, and its task in tests",
        "done left",
        "update tasker.steps set namespace = 'other' where id = $1",
    ),
    (
        "I11",
        "the batch is in other, and its task in tests",
        "done batch",
        "update tasker.batches set namespace = 'other' where id = $1",
    ),
    (
        "I11",
        "attempt 1 is in other, and its step in tests",
        "open work_002",
        "update tasker.failed_attempts set namespace = 'other' where step_id = $1",
    ),
];
