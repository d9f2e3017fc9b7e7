//! What people are told: reasons, workers, a batch held against its members.

use std::time::Duration;

use sqlx::PgPool;
use tasker_messages::{
    Heartbeat, Namespace, Queue, QueueLoad, Scope, StepKind, TaskId, WorkerId, WorkerView, code,
};
use uuid::Uuid;

use super::World;

const LIVE: Duration = Duration::from_secs(15);

fn beat(worker: WorkerId, callable: &str, draining: bool) -> Heartbeat {
    let queue = Queue::new("default").expect("a queue");
    Heartbeat {
        worker,
        name: callable.to_owned(),
        build: "1".to_owned(),
        queues: vec![QueueLoad { queue, slots: 4, busy: 1 }],
        callables: vec![callable.to_owned()],
        resolves: false,
        running: Vec::new(),
        draining,
        drained: false,
        bundles: false,
    }
}

impl World {
    /// Step, state and code of each reason.
    async fn reasons(&self, task: TaskId) -> Vec<String> {
        let why = self.store.explain_task(task, LIVE).await.expect("read").expect("there");
        why.reasons.iter().map(|r| format!("{} {} {}", r.step, r.state, r.code)).collect()
    }

    pub(super) async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.pool).await.expect("done");
    }
}

/// Only a worker of the namespace that is alive and takes steps makes a difference.
#[sqlx::test]
async fn offers(pool: PgPool) {
    let world = World::new(pool).await;
    let (here, there) = (super::ns(), Namespace::new("elsewhere").expect("a name"));
    let task = world.submit().await;
    let first = || async { world.reasons(task.id).await.remove(0) };
    assert_eq!(first().await, "before enqueued no_worker");
    let [silent, draining, other, lacking, able] =
        [(); 5].map(|()| WorkerId::from_uuid(Uuid::now_v7()));
    let beats = [
        (&here, beat(silent, "t.before", false)),
        (&here, beat(draining, "t.before", true)),
        (&there, beat(other, "t.before", false)),
    ];
    for (namespace, beat) in &beats {
        world.store.record_heartbeat(namespace, beat).await.expect("recorded");
    }
    world
        .run(
            "update tasker.workers set last_beat_at = now() - interval '20 s' where not draining
              and namespace = 'tests'",
        )
        .await;
    assert_eq!(first().await, "before enqueued no_worker");
    world.store.record_heartbeat(&here, &beat(lacking, "t.other", false)).await.expect("recorded");
    assert_eq!(first().await, "before enqueued no_handler");
    world.store.record_heartbeat(&here, &beat(able, "t.before", false)).await.expect("recorded");
    assert_eq!(first().await, "before enqueued queued");

    let listed = world
        .store
        .list_workers(&Scope::of(Some(here.clone())), LIVE, 100)
        .await
        .expect("read")
        .workers;
    let shown: Vec<(WorkerId, bool, bool)> =
        listed.iter().map(|w| (w.id, w.live, w.draining)).collect();
    // By name: t.before (three of them, by id), t.other.
    assert_eq!(
        shown,
        [
            (silent, false, false),
            (draining, true, true),
            (able, true, false),
            (lacking, true, false)
        ]
    );
    let all = world.store.list_workers(&Scope::All, LIVE, 2).await.expect("read").workers;
    assert_eq!(all[0].namespace, there, "namespaces in order, and no more than asked for");
    assert_eq!(all.len(), 2);
}

/// The reasons follow a batch from its analyzer to the step behind its aggregator.
#[sqlx::test]
async fn reasons_of_a_batch(pool: PgPool) {
    let world = World::new(pool).await;
    let worker = beat(world.worker, "t.work", false);
    world.store.record_heartbeat(&super::ns(), &worker).await.expect("recorded");
    let (task, batch) = world.expand(3).await;
    let rest = ["join absent not_yet_created", "after absent not_yet_created"];
    let with = |first: &'static str| [first, rest[0], rest[1]];
    assert_eq!(world.reasons(task.id).await, with("work sealed members_remain"));
    world.apply(&world.members(batch, 3)).await;
    assert_eq!(
        world.reasons(task.id).await,
        ["join absent settling", "after absent settling"],
        "the members have ended, and nobody has converged them yet"
    );
    world.store.converge_tasks(&[task.id]).await.expect("converged");
    assert_eq!(
        world.reasons(task.id).await,
        ["join enqueued no_handler", "after pending waits_for_parents"]
    );
    world.store.cancel_task(task.id, "test", None).await.expect("cancelled");
    assert_eq!(
        world.reasons(task.id).await,
        ["join cancelled cancelled", "after cancelled cancelled"]
    );
    let nobody = TaskId::from_uuid(Uuid::now_v7());
    assert!(world.store.explain_task(nobody, LIVE).await.expect("read").is_none());
}

/// `why` takes a batch for stopped as convergence does: by its budget. Every member of this one failed,
/// and it may not lose any.
#[sqlx::test]
async fn a_batch_that_failed_as_a_whole_and_was_stopped(pool: PgPool) {
    let world = World::new(pool).await;
    let task = world.submit().await;
    world.succeed(task.step_ids[0], StepKind::Standard).await;
    world.succeed(task.step_ids[1], StepKind::Batchable).await;
    let mut batch = world.new_batch(&task, 1);
    batch.max_failed = 0;
    world.store.seal_new_batches(std::slice::from_ref(&batch)).await.expect("sealed");
    let mut set = world.members(batch.id, 1);
    set[0].ending = Err(super::failure(false));
    world.apply(&set).await;
    world.store.converge_tasks(&[task.id]).await.expect("converged");
    assert_eq!(
        world.reasons(task.id).await,
        [
            "work failed batch_stopped",
            "join absent batch_stopped",
            "after absent blocked_by_failures"
        ]
    );
}

/// Each check of an audit finds the damage that it is for.
#[sqlx::test]
async fn audits(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(6).await;
    let mut set = world.members(batch, 4);
    set[1].ending = Err(super::failure(false));
    world.apply(&set).await;
    let failing = || async {
        let audit = world.store.audit_batch(batch).await.expect("read").expect("there");
        let failing: Vec<String> =
            audit.checks.iter().filter(|c| !c.ok).map(|c| c.name.clone()).collect();
        assert_eq!(audit.ok, failing.is_empty());
        failing
    };
    assert_eq!(failing().await, [""; 0]);
    let damages: [(&'static str, &'static str, &[&str]); 6] = [
        (
            "update tasker.batches set succeeded = succeeded - 1",
            "update tasker.batches set succeeded = succeeded + 1",
            &["counters"],
        ),
        (
            "update tasker.outcomes set attempt = 7 where state = 'error'",
            "update tasker.outcomes set attempt = 1 where state = 'error'",
            &["attempts"],
        ),
        (
            r#"update tasker.steps set cursor =
                   '{"batch_id":"003","start_cursor":2,"end_cursor":4,"batch_size":1}'
               where name = 'work_003'"#,
            r#"update tasker.steps set cursor =
                   '{"batch_id":"003","start_cursor":2,"end_cursor":3,"batch_size":1}'
               where name = 'work_003'"#,
            &["ranges"],
        ),
        (
            r#"update tasker.steps set cursor =
                   '{"batch_id":"002","start_cursor":2,"end_cursor":3,"batch_size":1}'
               where name = 'work_003'"#,
            r#"update tasker.steps set cursor =
                   '{"batch_id":"003","start_cursor":2,"end_cursor":3,"batch_size":1}'
               where name = 'work_003'"#,
            &["batch_ids"],
        ),
        (
            "update tasker.batches set expected = 5, published_upto = 0, expanded_upto = 5,
                 max_failed = 5, remaining = 1",
            "update tasker.batches set expected = 6, expanded_upto = 6, max_failed = 6, remaining = 2",
            &["members", "counters"],
        ),
        ("delete from tasker.steps where name = 'work_006'", "select 1", &["members", "counters"]),
    ];
    for (damage, undo, expect) in damages {
        world.run(damage).await;
        assert_eq!(failing().await, expect, "{damage}");
        world.run(undo).await;
    }
}

/// A step's history has the attempts that failed, and belongs to its task alone.
#[sqlx::test]
async fn a_history(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = world.expand(1).await;
    let mut set = world.members(batch, 1);
    set[0].ending = Err(super::failure(true));
    world.apply(&set).await;
    let member = batch.member(0);
    let history = world.store.step_history(task.id, member).await.expect("read").expect("there");
    assert_eq!(history.step.name, "work_001");
    assert_eq!(history.step.kind, StepKind::BatchWorker);
    let attempts: Vec<_> =
        history.attempts.iter().map(|a| (a.attempt, a.error.code.as_str())).collect();
    assert_eq!(attempts, [(1, "BOOM")]);
    assert_eq!(world.reasons(task.id).await[0], "work sealed no_worker");
    let other = world.submit().await;
    assert!(world.store.step_history(other.id, member).await.expect("read").is_none());
}

#[sqlx::test]
async fn a_wish_to_drain_stays_until_it_is_seen(pool: PgPool) {
    let world = World::new(pool).await;
    let (here, there) = (super::ns(), Namespace::new("elsewhere").expect("a name"));
    let worker = WorkerId::from_uuid(Uuid::now_v7());
    let ask = async || {
        world.store.ask_to_drain(&Scope::All, worker, "me", "r", LIVE).await.expect("decided")
    };
    let heard = async |namespace: &Namespace, draining| {
        let beat = beat(worker, "x", draining);
        world.store.record_heartbeat(namespace, &beat).await.expect("recorded")
    };
    assert_eq!(ask().await.map_err(|refusal| refusal.code), Err(code::WORKER_NOT_FOUND.to_owned()));
    assert!(!heard(&here, false).await && !heard(&there, false).await);
    world.run("update tasker.workers set last_beat_at = now() - interval '1 minute'").await;
    assert_eq!(ask().await.map_err(|refusal| refusal.code), Err(code::WORKER_SILENT.to_owned()));
    assert!(!heard(&here, false).await, "a wish that was refused is none");
    ask().await.expect("taken");
    let first = world.store.worker(&Scope::All, worker, LIVE).await.expect("read").workers;
    assert_eq!(first.len(), 2);
    assert!(first.iter().all(|view| view.drain_asked_at.is_some() && !view.draining));
    assert!(heard(&here, false).await && heard(&here, true).await && heard(&there, false).await);
    ask().await.expect("taken");
    let second = world.store.worker(&Scope::All, worker, LIVE).await.expect("read").workers;
    let asked = |views: &[WorkerView]| views[0].drain_asked_at.clone();
    assert_eq!(asked(&first), asked(&second), "to ask twice is to ask once");
    let audited: i64 = sqlx::query_scalar(
        "select count(*) from tasker.admin_actions where action = 'drain_worker' and principal = 'me'",
    )
    .fetch_one(&world.pool)
    .await
    .expect("counted");
    assert_eq!(audited, 4, "each wish in each namespace");
}

/// The view of a task that ends while it is read: the read of its row is held up until all has ended.
#[sqlx::test]
async fn a_task_that_has_ended_is_not_seen_with_steps_that_run(pool: PgPool) {
    let world = World::new(pool).await;
    let task = world.submit().await;
    let mut tx = world.pool.begin().await.expect("begun");
    for sql in [
        "lock table tasker.tasks in access exclusive mode",
        "insert into tasker.outcomes (step_id, state, attempt) select id, 'cancelled', 1 from tasker.steps",
        "update tasker.tasks set state = 'cancelled', finished_at = now()",
    ] {
        sqlx::query(sql).execute(&mut *tx).await.expect("done");
    }
    let store = world.store.clone();
    let view = tokio::spawn(async move { store.view_task(task.id, None).await });
    let waits = "select count(*) from pg_locks where not granted and database =
                 (select oid from pg_database where datname = current_database())";
    while world.count(waits).await == 0 {
        tokio::task::yield_now().await;
    }
    tx.commit().await.expect("committed");
    let view = view.await.expect("no panic").expect("read").expect("there");
    let states: Vec<_> = view.steps.iter().map(|step| step.state).collect();
    assert_eq!(view.state, tasker_messages::TaskState::Cancelled);
    assert!(
        states.iter().all(|state| *state == tasker_messages::StepState::Cancelled),
        "{states:?}"
    );
}
