//! Two transactions at a time.

use std::collections::BTreeMap;

use sqlx::PgPool;
use tasker_messages::{StepId, StepKind, Verdict};
use uuid::Uuid;

use super::{TERMS, World, failure};
use crate::settling::write_rows;
use crate::step_rows::{NewStepRow, StepRows};

/// Both transactions have read their rows before either of them counts.
#[sqlx::test]
async fn two_last_members_empty_their_batch_once(pool: PgPool) {
    let world = World::new(pool).await;
    for _ in 0..5 {
        let (task, batch) = world.expand(2).await;
        let set = world.members(batch, 2);
        let mut holding = world.pool.begin().await.expect("begun");
        sqlx::query("select from tasker.batches where id = $1 for no key update")
            .bind(batch.as_uuid())
            .execute(&mut *holding)
            .await
            .expect("locked");
        let (a, b, ()) = tokio::join!(world.apply(&set[..1]), world.apply(&set[1..]), async {
            until_waiting(&world, 2).await;
            holding.rollback().await.expect("released");
        });
        assert_eq!(a.emptied.len() + b.emptied.len(), 1, "exactly one transaction sees zero");
        let tasks = [task.id];
        let (a, b) =
            tokio::join!(world.store.converge_tasks(&tasks), world.store.converge_tasks(&tasks));
        let ready = a.expect("converged").ready.len() + b.expect("converged").ready.len();
        assert_eq!(ready, 1, "exactly one transaction makes the aggregator ready");
    }
    world.assert_consistent().await;
}

#[sqlx::test]
async fn the_same_outcome_twice_is_applied_once(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(40).await;
    let mut set = world.members(batch, 40);
    let forward = set.clone();
    set.reverse();
    let (a, b) = tokio::join!(world.apply(&forward), world.apply(&set));
    let applied = a.verdicts.iter().chain(&b.verdicts).filter(|v| **v == Verdict::Applied).count();
    assert_eq!(applied, 40);
    world.assert_consistent().await;
}

#[sqlx::test]
async fn two_expansions_make_one_batch(pool: PgPool) {
    let world = World::new(pool).await;
    let task = world.submit().await;
    world.succeed(task.step_ids[0], StepKind::Standard).await;
    world.succeed(task.step_ids[1], StepKind::Batchable).await;
    let (one, two) = ([world.new_batch(&task, 7)], [world.new_batch(&task, 7)]);
    let (a, b) =
        tokio::join!(world.store.seal_new_batches(&one), world.store.seal_new_batches(&two));
    assert_eq!(a.expect("sealed").batches.len() + b.expect("sealed").batches.len(), 1);
    assert_eq!(
        world.count("select count(*) from tasker.steps where batch_id is not null").await,
        7
    );
}

#[sqlx::test]
async fn a_claim_and_an_outcome_exclude_each_other(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(30).await;
    for ordinal in 0..30 {
        let step_id = batch.member(ordinal);
        let claim =
            [tasker_messages::Claim { step_id, dispatch_seq: 1, redelivered: false, begun: None }];
        let report = [world.finished(step_id, StepKind::BatchWorker, 1)];
        let ns = super::ns();
        let (claimed, applied) = tokio::join!(
            world.store.claim_steps(&ns, world.worker, &claim, &TERMS, None),
            world.apply(&report)
        );
        let ran = matches!(
            claimed.expect("decided").verdicts[0],
            tasker_messages::ClaimVerdict::Run { attempt: 2, .. }
        );
        let stored = applied.verdicts[0] == Verdict::Applied;
        assert!(ran != stored, "either a new attempt or the outcome of the old one");
    }
}

/// A converging transaction gives a step a child while the step's outcome waits for it: the statement
/// of the outcome began before the edge was there, and must not overlook it.
#[sqlx::test]
async fn a_child_that_comes_while_the_outcome_waits_is_released(pool: PgPool) {
    let world = World::new(pool).await;
    for in_sets in [false, true] {
        world.store_in_sets(in_sets);
        a_child_comes_while_the_outcome_waits(&world).await;
    }
}

async fn a_child_comes_while_the_outcome_waits(world: &World) {
    let before = world.count("select count(*) from tasker.outcomes").await;
    let task = world.submit().await;
    let parent = task.step_ids[0];
    let child = StepId::from_uuid(Uuid::now_v7());
    let mut converging = world.pool.begin().await.expect("begun");
    sqlx::query("select from tasker.steps where id = $1 for no key update")
        .bind(parent.as_uuid())
        .execute(&mut *converging)
        .await
        .expect("locked");
    let mut rows = StepRows::default();
    rows.push(NewStepRow {
        id: child,
        task_id: task.id,
        namespace: "tests",
        name: "late",
        kind: "standard",
        ready: false,
        pending_parents: 1,
        children: 0,
        unsettled: false,
        queue: "default",
    });
    let (applied, ()) = tokio::join!(world.succeed(parent, StepKind::Standard), async {
        until_waiting(world, 1).await;
        let edges = vec![(parent.as_uuid(), child.as_uuid())];
        let written = write_rows(&mut converging, &BTreeMap::new(), rows, edges).await;
        assert_eq!(written.expect("inserted"), (Vec::new(), vec![child.as_uuid()]));
        converging.commit().await.expect("committed");
    });
    let is_released = applied.ready.iter().any(|step| step.id == child);
    assert!(is_released, "the child is not released: {applied:?}");
    assert_eq!(applied.ready.len(), 2, "and `analyze`, which was there before");
    let outcomes = world.count("select count(*) from tasker.outcomes").await;
    assert_eq!(outcomes, before + 1);
}

/// Whoever ends a task may have begun before the failing step's outcome was stored.
#[sqlx::test]
async fn a_task_tells_the_error_of_a_step_that_failed_meanwhile(pool: PgPool) {
    const TWO: &str = "
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: bad, handler: {callable: t}}
  - {name: good, handler: {callable: t}}
";
    let world = World::of(pool, TWO).await;
    let task = world.submit().await;
    let mut bad = world.finished(task.step_ids[0], StepKind::Standard, 1);
    bad.ending = Err(failure(false));
    let good = world.finished(task.step_ids[1], StepKind::Standard, 1);
    let mut holding = world.pool.begin().await.expect("begun");
    sqlx::query("select from tasker.tasks for no key update")
        .execute(&mut *holding)
        .await
        .expect("locked");
    let first = world.apply(std::slice::from_ref(&bad));
    let second = async {
        until_waiting(&world, 1).await;
        world.apply(std::slice::from_ref(&good)).await
    };
    let (first, second, ()) = tokio::join!(first, second, async {
        until_waiting(&world, 2).await;
        holding.rollback().await.expect("released");
    });
    assert!(first.finished_tasks.is_empty());
    assert_eq!(second.finished_tasks.len(), 1);
    let view = world.store.view_task(task.id, None).await.expect("read").expect("there");
    assert_eq!(view.error.expect("says why").code, "BOOM");
}

/// Waits until so many transactions wait for a lock in the test's database.
async fn until_waiting(world: &World, transactions: i64) {
    let waiting = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
    while world.count(waiting).await < transactions {
        tokio::task::yield_now().await;
    }
}
