//! Whoever raises an attempt, sends again, leases or keeps a checkpoint, against the outcome of the
//! same step: DESIGN section 4, rule 1.

use serde_json::{Value, json};
use sqlx::PgPool;
use tasker_messages::{
    Checkpoint, CheckpointVerdict, Claim, ClaimVerdict, DropReason, NodeId, RecoveryKind,
    ReleasedStep, RunningStep, SaveCheckpoint, StepId, Verdict, WorkerId,
};
use uuid::Uuid;

use super::Gate;
use crate::tests::{TERMS, World, ns};

/// What is done to a step that may be about to end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meanwhile {
    Claim,
    Release,
    /// The same for an attempt that nobody has begun.
    Return,
    Redispatch,
    Lease,
    Checkpoint,
}

const STALE: Verdict = Verdict::Stale { superseded: false };
const SUPERSEDED: Verdict = Verdict::Stale { superseded: true };

/// Attempt, dispatch, whether it is leased, and whether there is a checkpoint.
type Fence = (i32, i32, bool, bool);

/// What happens to a step before its outcome comes, the verdict on that, and what becomes of the step.
const BEFORE_THE_OUTCOME: [(Meanwhile, Verdict, Fence); 6] = [
    (Meanwhile::Claim, STALE, (2, 1, true, false)),
    (Meanwhile::Release, SUPERSEDED, (2, 2, false, false)),
    (Meanwhile::Return, Verdict::Applied, (1, 2, false, false)),
    (Meanwhile::Redispatch, Verdict::Applied, (1, 2, false, false)),
    (Meanwhile::Lease, Verdict::Applied, (1, 1, true, false)),
    (Meanwhile::Checkpoint, Verdict::Applied, (1, 1, false, true)),
];

impl World {
    /// What it said.
    async fn do_to(&self, step_id: StepId, what: Meanwhile) -> &'static str {
        let (store, ns) = (&self.store, ns());
        let said = |yes: bool| if yes { "done" } else { "nothing to do" };
        match what {
            Meanwhile::Claim => {
                let claim = [Claim { step_id, dispatch_seq: 1, redelivered: false, begun: None }];
                let other = WorkerId::from_uuid(Uuid::now_v7());
                let granted =
                    store.claim_steps(&ns, other, &claim, &TERMS, None).await.expect("decided");
                match granted.verdicts[0] {
                    ClaimVerdict::Run { attempt: 2, .. } => "done",
                    ClaimVerdict::Drop(DropReason::Ended) => "nothing to do",
                    other => panic!("{other:?}"),
                }
            }
            Meanwhile::Release | Meanwhile::Return => {
                let unstarted = what == Meanwhile::Return;
                let given_back = [ReleasedStep { step_id, dispatch_seq: 1, attempt: 1, unstarted }];
                said(
                    store.release_steps(&ns, self.worker, &given_back).await.expect("decided")
                        == [step_id],
                )
            }
            Meanwhile::Redispatch => {
                let queue = tasker_messages::Queue::default();
                let why = (NodeId::from_uuid(Uuid::nil()), RecoveryKind::LostMessages);
                let sent = store.redispatch((&ns, &queue), &[step_id], why).await;
                said(sent.expect("decided") == 1)
            }
            Meanwhile::Lease => {
                let running = [RunningStep { step_id, attempt: 1 }];
                store.renew_leases(&ns, self.worker, &running, 60_000).await.expect("renewed");
                "done"
            }
            Meanwhile::Checkpoint => {
                let checkpoint = Checkpoint {
                    cursor: json!(5),
                    items_processed: 5,
                    accumulated_results: Value::Null,
                    timestamp: None,
                };
                let save = [SaveCheckpoint { step_id, attempt: 1, checkpoint }];
                let verdicts = store.save_checkpoints(&ns, &save).await.expect("decided");
                said(verdicts[&(step_id, 1)] == CheckpointVerdict::Saved)
            }
        }
    }

    async fn fence(&self, step: StepId) -> Fence {
        sqlx::query_as(
            "select attempt, dispatch_seq, lease_until is not null,
                    exists (select from tasker.checkpoints c where c.step_id = steps.id)
             from tasker.steps where id = $1",
        )
        .bind(step.as_uuid())
        .fetch_one(&self.pool)
        .await
        .expect("a step")
    }
}

/// The outcome is first: whoever else waits for the step finds that it has ended and changes nothing.
/// One guarded statement in place of lock and test would judge by what it saw before it waited.
#[sqlx::test]
async fn what_has_ended_is_left_alone(pool: PgPool) {
    use Meanwhile::{Checkpoint, Claim, Lease, Redispatch, Release, Return};
    let world = World::new(pool).await;
    for what in [Claim, Release, Return, Redispatch, Lease, Checkpoint] {
        let (task, batch) = world.expand(1).await;
        let (step, last) = (batch.member(0), [world.member(batch, 0)]);
        let gate = Gate::Batch(batch);
        let (applied, said) =
            world.in_order(gate, world.apply(&last), world.do_to(step, what)).await;
        assert_eq!(applied.verdicts, [Verdict::Applied], "{what:?}");
        assert!(what == Lease || said == "nothing to do", "{what:?}: {said}");
        assert_eq!(world.fence(step).await, (1, 1, false, false), "{what:?}");
        let end = "in_progress 1/2/0 | analyze=complete before=complete work_001=complete | \
                   work sealed 0/1/0";
        assert_eq!(world.shown(task.id).await, end, "{what:?}");
    }
}

/// The outcome is second: it counts unless its attempt is no longer the current one, and then the
/// worker is told whether another message stands for the step.
#[sqlx::test]
async fn an_outcome_finds_what_happened_before_it(pool: PgPool) {
    let world = World::new(pool).await;
    for (what, verdict, fence) in BEFORE_THE_OUTCOME {
        let (_, batch) = world.expand(1).await;
        let (step, last) = (batch.member(0), [world.member(batch, 0)]);
        let gate = Gate::Step(step);
        let (said, applied) =
            world.in_order(gate, world.do_to(step, what), world.apply(&last)).await;
        assert_eq!((said, applied.verdicts), ("done", vec![verdict]), "{what:?}");
        assert_eq!(world.fence(step).await, fence, "{what:?}");
        let ended = i64::from(verdict == Verdict::Applied);
        assert_eq!(applied.emptied.len() as i64, ended, "{what:?}");
        world.assert_consistent().await;
    }
}

/// The two above with a step that is no member, whose outcome has a statement of its own.
#[sqlx::test]
async fn the_fence_of_a_step_that_is_no_member(pool: PgPool) {
    use Meanwhile::Lease;
    let world = World::new(pool).await;
    let undisturbed = world.submit().await;
    world.done(&undisturbed, &["before"]).await;
    let undisturbed = world.shown(undisturbed.id).await;
    for (what, verdict, fence) in BEFORE_THE_OUTCOME {
        let task = world.submit().await;
        let (step, last) = (task.step_ids[0], [world.attempt(&task, "before").await]);
        world.store.mark_sent(&[(step, 1)]).await.expect("recorded");
        let (applied, said) =
            world.in_order(Gate::Task(task.id), world.apply(&last), world.do_to(step, what)).await;
        assert_eq!(applied.verdicts, [Verdict::Applied], "{what:?}");
        assert!(what == Lease || said == "nothing to do", "{what:?}: {said}");
        assert_eq!(world.fence(step).await, (1, 1, false, false), "{what:?}");
        assert_eq!(world.shown(task.id).await, undisturbed, "{what:?}");

        let task = world.submit().await;
        let (step, last) = (task.step_ids[0], [world.attempt(&task, "before").await]);
        world.store.mark_sent(&[(step, 1)]).await.expect("recorded");
        let (said, applied) =
            world.in_order(Gate::Step(step), world.do_to(step, what), world.apply(&last)).await;
        assert_eq!((said, applied.verdicts), ("done", vec![verdict]), "{what:?}");
        assert_eq!(world.fence(step).await, fence, "{what:?}");
        assert_eq!(applied.ready.len(), usize::from(verdict == Verdict::Applied), "{what:?}");
        world.assert_consistent().await;
    }
}

/// A failed attempt that runs again against a claim of the same step: one new attempt, not two.
#[sqlx::test]
async fn a_retry_and_a_claim_raise_the_attempt_once(pool: PgPool) {
    let world = World::new(pool).await;
    for retry_first in [true, false] {
        let (_, batch) = world.expand(1).await;
        let step = batch.member(0);
        let mut attempt = world.member(batch, 0);
        attempt.ending = Err(crate::tests::failure(true));
        let report = [attempt];
        let claim = [Claim { step_id: step, dispatch_seq: 1, redelivered: false, begun: None }];
        let claims = async {
            let other = WorkerId::from_uuid(Uuid::now_v7());
            let granted = world.store.claim_steps(&ns(), other, &claim, &TERMS, None).await;
            granted.expect("decided").verdicts[0]
        };
        let gate = Gate::Step(step);
        if retry_first {
            let (applied, claimed) = world.in_order(gate, world.apply(&report), claims).await;
            assert_eq!(applied.verdicts, [Verdict::Applied]);
            assert_eq!(claimed, ClaimVerdict::Drop(DropReason::Superseded));
            assert_eq!(world.fence(step).await, (2, 2, false, false));
        } else {
            let (claimed, applied) = world.in_order(gate, claims, world.apply(&report)).await;
            assert_eq!(claimed, ClaimVerdict::Run { attempt: 2, tries: 0 });
            assert_eq!(applied.verdicts, [Verdict::Stale { superseded: false }]);
            assert_eq!(world.fence(step).await, (2, 1, true, false));
        }
    }
}
