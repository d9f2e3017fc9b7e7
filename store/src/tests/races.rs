//! Two transactions at a time.

use sqlx::PgPool;
use tasker_messages::{StepKind, Verdict};

use super::World;

#[sqlx::test]
async fn two_last_members_empty_their_batch_once(pool: PgPool) {
    let world = World::new(pool).await;
    for _ in 0..20 {
        let (task, batch) = world.expand(2).await;
        let set = world.members(batch, 2);
        let (a, b) = tokio::join!(world.apply(&set[..1]), world.apply(&set[1..]));
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
        let claim = [tasker_messages::Claim { step_id, dispatch_seq: 1, redelivered: false }];
        let report = [world.finished(step_id, StepKind::BatchWorker, 1)];
        let ns = super::ns();
        let (claimed, applied) = tokio::join!(
            world.store.claim_steps(&ns, world.worker, &claim, 60_000),
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
