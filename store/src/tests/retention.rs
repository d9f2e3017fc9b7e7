//! Removal of finished tasks.

use std::time::Duration;

use serde_json::json;
use sqlx::PgPool;
use tasker_messages::{
    BatchId, Checkpoint, SaveCheckpoint, Scope, StepKind, TaskId, Verdict, code,
};
use uuid::Uuid;

use super::{World, failure, ns};
use crate::{
    Expiry, MemberSource, NewTask, Purged, RepairRequest, RepairTarget, Store, SubmitVerdict,
    VerifyRequest,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// Everything that has finished.
fn all() -> Expiry {
    Expiry::by_age(Duration::ZERO)
}

/// A task and the ids of its steps.
struct Known {
    task: TaskId,
    steps: Vec<Uuid>,
}

const ROWS_OF_TASK: &str = "select what, rows from (
         select 'tasks' as what, count(*) as rows from tasker.tasks where id = $1
         union all select 'expired', count(*) from tasker.expired_tasks where task_id = $1
         union all select 'batches', count(*) from tasker.batches where task_id = $1
         union all select 'steps', count(*) from tasker.steps where task_id = $1
         union all select 'outcomes', count(*) from tasker.outcomes where step_id = any($2)
         union all select 'attempts', count(*) from tasker.failed_attempts where step_id = any($2)
         union all select 'checkpoints', count(*) from tasker.checkpoints where step_id = any($2)
         union all select 'pages', count(*) from tasker.cursor_pages where step_id = any($2)
         union all select 'edges', count(*) from tasker.step_edges
                   where parent_id = any($2) or child_id = any($2)
         union all select 'audit', count(*) from tasker.admin_actions where task_id = $1
         union all select 'letters', count(*) from tasker.dead_letters where task_id = $1) r
     where rows > 0 order by what";

impl World {
    async fn known(&self, task: TaskId) -> Known {
        let steps = sqlx::query_scalar("select id from tasker.steps where task_id = $1")
            .bind(task.as_uuid())
            .fetch_all(&self.pool);
        Known { task, steps: steps.await.expect("read") }
    }

    /// The tables that have rows of the task, and how many.
    async fn rows(&self, known: &Known) -> Vec<(String, i64)> {
        let rows = sqlx::query_as(ROWS_OF_TASK).bind(known.task.as_uuid()).bind(&known.steps);
        rows.fetch_all(&self.pool).await.expect("read")
    }

    /// Changes what belongs to a task.
    async fn change(&self, task: TaskId, statement: &'static str) {
        let done = sqlx::query(statement).bind(task.as_uuid()).execute(&self.pool).await;
        assert!(done.expect(statement).rows_affected() > 0, "{statement}");
    }

    async fn cancelled(&self) -> TaskId {
        let task = self.submit().await;
        self.store.cancel_task(task.id, "op", None).await.expect("cancelled");
        task.id
    }

    /// All members of the task's batch have ended: the rest of it does, too.
    async fn finish(&self, task: TaskId) {
        let converged = self.store.converge_tasks(&[task]).await.expect("converged");
        let joined = self.succeed(converged.ready[0].id, StepKind::DeferredConvergence).await;
        let last = self.succeed(joined.ready[0].id, StepKind::Standard).await;
        assert_eq!(last.finished_tasks.len(), 1);
    }

    /// A finished task that has rows in every table, with a batch of so many members. The first member
    /// ran twice.
    async fn eventful(&self, members: u32) -> (Known, BatchId) {
        let (task, batch) = self.expand(members).await;
        let checkpoint = Checkpoint {
            cursor: json!(1),
            items_processed: 1,
            accumulated_results: json!([]),
            timestamp: None,
        };
        let save = SaveCheckpoint { step_id: batch.member(1), attempt: 1, checkpoint };
        self.store.save_checkpoints(&ns(), &[save]).await.expect("stored");
        let mut first = self.finished(batch.member(0), StepKind::BatchWorker, 1);
        first.ending = Err(failure(true));
        self.apply(&[first]).await;
        sqlx::query("update tasker.steps set run_after = now() where run_after is not null")
            .execute(&self.pool)
            .await
            .expect("made due");
        assert_eq!(self.store.wake_retries(10).await.expect("woken"), [batch.member(0)]);
        let mut set = self.members(batch, members);
        (set[0].attempt, set[0].dispatch_seq) = (2, 2);
        let applied = self.apply(&set).await;
        assert!(applied.verdicts.iter().all(|v| *v == Verdict::Applied), "{applied:?}");
        self.finish(task.id).await;
        for statement in [
            "insert into tasker.cursor_pages
                 (step_id, attempt, page, cursors, count, total, last_batch_id)
             select id, 1, 0, '[]', 0, 0, '' from tasker.steps
             where task_id = $1 and name = 'analyze'",
            "insert into tasker.admin_actions (namespace, task_id, action, principal)
             values ('tests', $1, 'test', 'op')",
            "insert into tasker.dead_letters (namespace, task_id, error, redriven_at)
             values ('tests', $1, json_build_object('code', 'X', 'message', 'x'), now())",
        ] {
            self.change(task.id, statement).await;
        }
        (self.known(task.id).await, batch)
    }

    /// Looks at two tasks at a time.
    async fn expire(&self, which: Expiry) -> u64 {
        let (mut tasks, mut after) = (0, None);
        loop {
            let expired = self.store.expire_tasks(which, after, 2).await.expect("expired");
            tasks += expired.tasks;
            if expired.next.is_none() {
                return tasks;
            }
            after = expired.next;
        }
    }

    async fn purge(&self, rows: u32) -> Purged {
        self.store.purge_expired(rows).await.expect("purged")
    }

    async fn is_there(&self, task: TaskId) -> bool {
        self.store.namespace_of_task(task).await.expect("read").is_some()
    }
}

#[sqlx::test]
async fn what_finished_long_ago_goes_and_what_did_lately_stays(pool: PgPool) {
    let world = World::new(pool).await;
    let made_ago = async |hours: u32| {
        let mut task = world.new_task(None, 1);
        let ms = u128::from(hours) * HOUR.as_millis();
        task.id = TaskId::from_uuid(Uuid::from_u128(task.id.as_uuid().as_u128() - (ms << 80)));
        world.store.insert_tasks(std::slice::from_ref(&task)).await.expect("stored");
        task.id
    };
    let ended_ago = async |task: TaskId, statement| {
        world.store.cancel_task(task, "op", None).await.expect("cancelled");
        world.change(task, statement).await;
    };
    let (old, late, running) = (made_ago(5).await, made_ago(5).await, made_ago(5).await);
    let young = world.submit().await.id;
    let three = "update tasker.tasks set finished_at = now() - interval '3 hours' where id = $1";
    ended_ago(old, three).await;
    ended_ago(
        late,
        "update tasker.tasks set finished_at = now() - interval '1 hour' where id = $1",
    )
    .await;
    // Made by a clock that is wrong: nobody looks that far.
    ended_ago(young, three).await;

    assert_eq!(world.expire(Expiry::by_age(4 * HOUR)).await, 0, "nothing is as old");
    assert_eq!(world.expire(Expiry::by_age(Duration::MAX)).await, 0);
    assert_eq!(world.expire(Expiry::by_age(2 * HOUR)).await, 1);
    assert!(!world.is_there(old).await);
    for task in [late, running, young] {
        assert!(world.is_there(task).await);
    }
}

#[sqlx::test]
async fn the_newest_are_kept_and_open_ones_do_not_count(pool: PgPool) {
    let world = World::new(pool).await;
    let mut ended = Vec::new();
    let mut open = Vec::new();
    for _ in 0..5 {
        ended.push(world.cancelled().await);
        open.push(world.submit().await.id);
    }
    let surplus = async |kept| world.store.find_surplus(kept).await.expect("read");
    assert_eq!(surplus(5).await, None);
    let upto = surplus(2).await.expect("three are too many");
    assert_eq!(upto, ended[2]);
    assert_eq!(world.expire(Expiry { upto, finished_for: HOUR }).await, 0, "it ended just now");
    assert_eq!(world.expire(Expiry { upto, finished_for: Duration::ZERO }).await, 3);
    for (n, task) in ended.iter().enumerate() {
        assert_eq!(world.is_there(*task).await, n > 2, "{n}");
    }
    for task in open {
        assert!(world.is_there(task).await);
    }
    assert_eq!(surplus(2).await, None);
}

#[sqlx::test]
async fn what_somebody_has_to_decide_about_stays_until_it_is_decided(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = world.expand(3).await;
    world.change(task.id, "update tasker.batches set isolates = true where task_id = $1").await;
    let mut set = world.members(batch, 3);
    set[1].ending = Err(failure(false));
    world.apply(&set).await;
    assert_eq!(world.expire(all()).await, 0, "it runs");
    world.finish(task.id).await;
    assert_eq!(world.expire(all()).await, 0, "it has an open letter");
    world
        .change(task.id, "update tasker.dead_letters set redriven_at = now() where task_id = $1")
        .await;
    assert_eq!(world.expire(all()).await, 1);
    while world.purge(2).await.more {}
    let letters = "select count(*) from tasker.dead_letters";
    assert_eq!(world.count(letters).await, 1);
}

#[sqlx::test]
async fn members_that_are_still_cancelled_lose_no_step_under_their_outcomes(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, _) = world.expand(3).await;
    world.store.cancel_task(task.id, "op", None).await.expect("cancelled");
    assert_eq!(world.expire(all()).await, 0, "members have no outcome yet");
    while world.store.cancel_members(2).await.expect("cancelled") {}
    assert_eq!(world.expire(all()).await, 1);
}

#[sqlx::test]
async fn a_task_that_is_repaired_meanwhile_stays(pool: PgPool) {
    let world = World::new(pool).await;
    let task = world.cancelled().await;
    let mut repair = world.pool.begin().await.expect("begun");
    let revive = "update tasker.tasks set state = 'in_progress', finished_at = null where id = $1";
    sqlx::query(revive).bind(task.as_uuid()).execute(&mut *repair).await.expect("revived");
    assert_eq!(world.expire(all()).await, 0, "somebody else has it");
    repair.commit().await.expect("committed");
    assert_eq!(world.expire(all()).await, 0, "it is open");
    assert!(world.is_there(task).await);
}

#[sqlx::test]
async fn chunks_take_all_of_a_task_and_nothing_of_another(pool: PgPool) {
    let world = World::new(pool).await;
    let (gone, _) = world.eventful(25).await;
    let (other, _) = world.eventful(25).await;
    let before = world.rows(&other).await;
    let tables: Vec<&str> = before.iter().map(|(table, _)| table.as_str()).collect();
    let expect = [
        "attempts",
        "audit",
        "batches",
        "checkpoints",
        "edges",
        "letters",
        "outcomes",
        "pages",
        "steps",
        "tasks",
    ];
    assert_eq!(tables, expect, "the test looks at every table");
    assert_eq!(world.rows(&gone).await, before);

    let which = Expiry { upto: gone.task, ..all() };
    assert_eq!(world.expire(which).await, 1);
    world.assert_consistent().await;
    let mut rows = Vec::new();
    loop {
        let purged = world.purge(10).await;
        rows.push(purged.rows);
        world.assert_consistent().await;
        if !purged.more {
            break;
        }
    }
    assert_eq!(rows, [10, 10, 9], "25 members and four steps");
    let left = world.rows(&gone).await;
    assert_eq!(left, [("audit".to_owned(), 1), ("letters".to_owned(), 1)]);
    assert_eq!(world.rows(&other).await, before);
    assert_eq!(world.purge(10).await, Purged::default());
}

#[sqlx::test]
async fn a_purge_that_was_broken_off_goes_on_in_another_process(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let (gone, batch) = world.eventful(25).await;
    assert_eq!(world.expire(all()).await, 1);
    assert_eq!(world.purge(10).await, Purged { rows: 10, more: true });
    let upto: Uuid = sqlx::query_scalar("select purged_upto from tasker.expired_tasks")
        .fetch_one(&pool)
        .await
        .expect("read");
    assert_eq!(upto, batch.member(9).as_uuid(), "what is gone is not read again");
    let other = Store::from_pool(pool);
    let mut rows = 0;
    loop {
        let purged = other.purge_expired(7).await.expect("purged");
        rows += purged.rows;
        if !purged.more {
            break;
        }
    }
    assert_eq!(rows, 19);
    let left = world.rows(&gone).await;
    assert_eq!(left, [("audit".to_owned(), 1), ("letters".to_owned(), 1)]);
}

#[sqlx::test]
async fn chunks_of_any_size_come_to_an_end(pool: PgPool) {
    let world = World::new(pool).await;
    for chunk_rows in [0, 1, 3, 4, 5, 12, 13, 1_000] {
        for _ in 0..3 {
            let (task, batch) = world.expand(4).await;
            world.apply(&world.members(batch, 4)).await;
            world.finish(task.id).await;
        }
        assert_eq!(world.expire(all()).await, 3);
        let mut rows = 0;
        loop {
            let purged = world.purge(chunk_rows).await;
            assert!(purged.rows <= u64::from(chunk_rows.max(1)), "{chunk_rows}: {purged:?}");
            rows += purged.rows;
            world.assert_consistent().await;
            if !purged.more {
                break;
            }
        }
        assert_eq!(rows, 24, "{chunk_rows}");
        let left = "select (select count(*) from tasker.steps)
                         + (select count(*) from tasker.outcomes)
                         + (select count(*) from tasker.batches)
                         + (select count(*) from tasker.step_edges)
                         + (select count(*) from tasker.expired_tasks)";
        assert_eq!(world.count(left).await, 0, "{chunk_rows}");
    }
}

#[sqlx::test]
async fn a_batch_that_was_never_sealed_goes_too(pool: PgPool) {
    let world = World::new(pool).await;
    let task = world.submit().await;
    world.succeed(task.step_ids[0], StepKind::Standard).await;
    world.succeed(task.step_ids[1], StepKind::Batchable).await;
    let batch = world.new_batch(&task, 5);
    let begun = world.store.begin_expansion(&batch).await.expect("begun").expect("open");
    let source = MemberSource::Given(batch.members[..3].to_vec());
    let chunk = world.store.write_chunk(&batch, begun.id, 0, &source, true).await;
    chunk.expect("written").expect("expanding").commit().await.expect("committed");
    world.store.cancel_task(task.id, "op", None).await.expect("cancelled");
    assert_eq!(world.expire(all()).await, 0, "three members are there");
    while world.store.cancel_members(2).await.expect("cancelled") {}
    let known = world.known(task.id).await;
    assert_eq!(world.expire(all()).await, 1);
    assert_eq!(world.purge(10).await, Purged { rows: 2, more: false });
    assert_eq!(world.rows(&known).await, [("audit".to_owned(), 1)]);
}

#[sqlx::test]
async fn two_nodes_that_sweep_at_once_do_everything_once(pool: PgPool) {
    let world = World::new(pool).await;
    let set: Vec<NewTask> = (0..300).map(|_| world.new_task(None, 1)).collect();
    world.store.insert_tasks(&set).await.expect("stored");
    sqlx::query("update tasker.tasks set state = 'cancelled', finished_at = now()")
        .execute(&world.pool)
        .await
        .expect("ended");
    let (one, two) = tokio::join!(world.expire(all()), world.expire(all()));
    let rest = world.expire(all()).await;
    assert_eq!(one + two + rest, 300);
    let sweep = async || {
        let mut rows = 0;
        while world.count("select count(*) from tasker.expired_tasks").await > 0 {
            rows += world.purge(7).await.rows;
        }
        rows
    };
    let (one, two) = tokio::join!(sweep(), sweep());
    assert_eq!(one + two, 600);
    assert_eq!(world.count("select count(*) from tasker.steps").await, 0);
}

#[sqlx::test]
async fn a_key_is_free_again(pool: PgPool) {
    let world = World::new(pool).await;
    let submit = async |hash| {
        let task = world.new_task(Some("k"), hash);
        (task.id, world.store.insert_tasks(&[task]).await.expect("stored")[0])
    };
    let (first, _) = submit(1).await;
    world.store.cancel_task(first, "op", None).await.expect("cancelled");
    assert_eq!(submit(1).await.1, SubmitVerdict::Existing(first));
    assert_eq!(world.expire(all()).await, 1);
    assert_eq!(submit(2).await.1, SubmitVerdict::Created);
    assert_eq!(world.purge(10).await, Purged { rows: 2, more: false });
    assert_eq!(world.count("select count(*) from tasker.steps").await, 2, "those of the new one");
    world.assert_consistent().await;
}

#[sqlx::test]
async fn nobody_finds_a_task_that_is_being_removed(pool: PgPool) {
    let world = World::new(pool).await;
    let (known, batch) = world.eventful(3).await;
    let (task, store) = (known.task, &world.store);
    assert!(store.view_batch(batch).await.expect("read").is_some());
    assert_eq!(world.expire(all()).await, 1);
    assert!(store.view_task(task, None).await.expect("read").is_none());
    assert!(store.list_steps(task, None, 10).await.expect("read").is_none());
    assert!(store.step_history(task, batch.member(0)).await.expect("read").is_none());
    assert!(store.list_tasks(&Scope::All, None, None, 10).await.expect("read").tasks.is_empty());
    assert!(store.view_batch(batch).await.expect("read").is_none());
    assert!(store.audit_batch(batch).await.expect("read").is_none());
    assert_eq!(store.namespace_of_batch(batch).await.expect("read"), None);
    let request = RepairRequest {
        task,
        target: RepairTarget::Task,
        cascade: false,
        principal: "op".to_owned(),
        reason: "again".to_owned(),
    };
    let refused = store.repair(&request).await.expect("asked").expect_err("refused");
    assert_eq!(refused.code, code::TASK_NOT_FOUND);
    // A report that comes late is no reason to look further.
    let late = world.apply(&world.members(batch, 1)).await;
    assert_eq!(late.verdicts, [Verdict::Duplicate]);
    let accepted = VerifyRequest { accepted: vec![task], at_rest: true };
    let found = store.verify(&accepted).await.expect("read");
    assert!(found.ok, "{found:#?}");
    while world.purge(2).await.more {}
    let late = world.apply(&world.members(batch, 1)).await;
    assert_eq!(late.verdicts, [Verdict::Unknown]);
}
