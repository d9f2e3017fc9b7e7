//! Cancelled tasks, stopped batches and retries against what ends or begins at the same time: DESIGN
//! section 4, rules 3 and 5.

use sqlx::{Connection, PgPool};
use tasker_messages::{BatchId, Claim, ClaimVerdict, DropReason, StepId, TaskState, Verdict};
use uuid::Uuid;

use super::{Gate, ORDERS, WAITING, failed, told, until};
use crate::tests::{TERMS, World, failure, ns};
use crate::{Cancelled, FinishedAttempt, NewTask, RepairTarget};

const ONE: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: done, handler: {callable: t}}
  - {name: last, handler: {callable: t}}
";

/// A task is cancelled while its last step ends: it is complete or cancelled, by exactly one of them.
#[sqlx::test]
async fn a_task_is_cancelled_while_its_last_step_ends(pool: PgPool) {
    let world = World::of(pool, ONE).await;
    for (cancel_first, in_sets) in ORDERS {
        world.store_in_sets(in_sets);
        let task = world.submit().await;
        world.done(&task, &["done"]).await;
        let last = [world.attempt(&task, "last").await];
        let gate = Gate::Task(task.id);
        let (cancelled, outcome) = if cancel_first {
            world.in_order(gate, world.cancel(&task), world.apply(&last)).await
        } else {
            let (o, c) = world.in_order(gate, world.apply(&last), world.cancel(&task)).await;
            (c, o)
        };
        let shown = world.shown(task.id).await;
        if cancel_first {
            assert_eq!(cancelled, Cancelled::Now { namespace: ns() });
            assert_eq!(outcome.verdicts, [Verdict::Duplicate], "it may be acknowledged");
            assert!(outcome.finished_tasks.is_empty());
            assert_eq!(shown, "cancelled 1/0/0 | done=complete last=cancelled");
        } else {
            assert_eq!(cancelled, Cancelled::Ended(TaskState::Complete));
            assert_eq!(outcome.finished_tasks.len(), 1);
            assert_eq!(shown, "complete 0/0/0 | done=complete last=complete");
        }
    }
}

/// The same with a failure that would be retried: a cancelled step does not wait for anything, and no
/// timer wakes it.
#[sqlx::test]
async fn a_task_is_cancelled_while_a_retry_is_scheduled(pool: PgPool) {
    let world = World::of(pool, ONE).await;
    for cancel_first in [true, false] {
        let task = world.submit().await;
        let ending = Err(failure(true));
        let report = [FinishedAttempt { ending, ..world.attempt(&task, "last").await }];
        let gate = Gate::Step(report[0].step_id);
        let outcome = if cancel_first {
            world.in_order(gate, world.cancel(&task), world.apply(&report)).await.1
        } else {
            world.in_order(gate, world.apply(&report), world.cancel(&task)).await.0
        };
        let verdict = if cancel_first { Verdict::Duplicate } else { Verdict::Applied };
        assert_eq!(outcome.verdicts, [verdict]);
        make_due(&world).await;
        assert_eq!(world.store.wake_retries(10).await.expect("read"), []);
        assert_eq!(world.shown(task.id).await, "cancelled 2/0/0 | done=cancelled last=cancelled");
    }
}

/// A member ends while its task is cancelled: its outcome is kept and counted, as the other members get
/// theirs by the sweep; whoever reads pages sees one outcome per member.
#[sqlx::test]
async fn a_member_ends_while_its_task_is_cancelled(pool: PgPool) {
    let world = World::new(pool).await;
    for cancel_first in [true, false] {
        let (task, batch) = world.expand(3).await;
        let ends = [world.member(batch, 1)];
        let outcome = if cancel_first {
            let gate = Gate::Task(task.id);
            world.in_order(gate, world.cancel(&task), world.apply(&ends)).await.1
        } else {
            world.in_order(Gate::Batch(batch), world.apply(&ends), world.cancel(&task)).await.0
        };
        assert_eq!(outcome.verdicts, [Verdict::Applied]);
        world.sweep().await;
        assert_eq!(world.apply(&world.members(batch, 3)).await.verdicts, [Verdict::Duplicate; 3]);
        let end = "cancelled 1/2/0 | analyze=complete before=complete work_001=cancelled \
                   work_002=complete work_003=cancelled | work cancelled 0/1/0";
        assert_eq!(world.shown(task.id).await, end, "cancel first: {cancel_first}");
        assert_eq!(world.count("select count(*) from tasker.batches where not settled").await, 0);
    }
}

/// A task is cancelled while its aggregator is created. The new row was not there when cancelling began
/// to wait, and must get its outcome all the same.
#[sqlx::test]
async fn a_task_is_cancelled_while_it_converges(pool: PgPool) {
    let world = World::new(pool).await;
    for cancel_first in [true, false] {
        let (task, batch) = world.expand(1).await;
        world.apply(&world.members(batch, 1)).await;
        let gate = Gate::Task(task.id);
        let converged = if cancel_first {
            world.in_order(gate, world.cancel(&task), world.converge(&task)).await.1
        } else {
            world.in_order(gate, world.converge(&task), world.cancel(&task)).await.0
        };
        world.sweep().await;
        assert_eq!(converged.ready.len(), usize::from(!cancel_first));
        let end = match cancel_first {
            true => {
                "cancelled 1/2/0 | analyze=complete before=complete work_001=complete | \
                 work cancelled 0/1/0"
            }
            false => {
                "cancelled 1/1/0 | after=cancelled analyze=complete before=complete \
                 join=cancelled work_001=complete | work converged 0/1/0"
            }
        };
        assert_eq!(world.shown(task.id).await, end);
        let open = world.count("select count(*) from tasker.batches where not settled").await;
        assert_eq!(open, 0, "nothing is left to sweep");
    }
}

/// A batch of four of which none may fail; one has.
async fn stopped(world: &World) -> (NewTask, BatchId) {
    let (task, batch) = world.expand(4).await;
    sqlx::query("update tasker.batches set max_failed = 0")
        .execute(&world.pool)
        .await
        .expect("set");
    let applied = world.apply(&[failed(world.member(batch, 0))]).await;
    assert_eq!(applied.stopped, [(batch, task.id)]);
    (task, batch)
}

/// Rule 3: a late result of a stopped batch, while the sweep gives its member an outcome. One of the
/// two is stored, and the batch counts it once: a sweep that counted what it meant to end would count
/// the late result twice.
#[sqlx::test]
async fn a_late_member_ends_while_its_batch_is_stopped(pool: PgPool) {
    let world = World::new(pool).await;
    for sweep_first in [true, false] {
        let (task, batch) = stopped(&world).await;
        let late = [world.member(batch, 1)];
        let sweep = async { world.store.cancel_members(10).await.expect("swept") };
        let gate = Gate::Batch(batch);
        let (outcome, verdict, second, counts) = if sweep_first {
            let (_, late) = world.in_order(gate, sweep, world.apply(&late)).await;
            (late, Verdict::Duplicate, "cancelled", "0/0/1")
        } else {
            let (late, _) = world.in_order(gate, world.apply(&late), sweep).await;
            (late, Verdict::Applied, "complete", "0/1/1")
        };
        assert_eq!(outcome.verdicts, [verdict]);
        world.sweep().await;
        let converged = world.converge(&task).await;
        assert_eq!((converged.ready.len(), converged.finished_tasks.len()), (0, 1));
        let end = format!(
            "blocked_by_failures 0/2/1 | analyze=complete before=complete work_001=error \
             work_002={second} work_003=cancelled work_004=cancelled | work failed {counts}"
        );
        assert_eq!(world.shown(task.id).await, end);
    }
}

/// Two members fail at the same time and both are one too many: the stop is told once.
#[sqlx::test]
async fn two_failures_stop_a_batch_once(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = world.expand(3).await;
    sqlx::query("update tasker.batches set max_failed = 0")
        .execute(&world.pool)
        .await
        .expect("set");
    let (one, other) = ([failed(world.member(batch, 0))], [failed(world.member(batch, 1))]);
    let gate = Gate::Batch(batch);
    let (one, other) = world.in_order(gate, world.apply(&one), world.apply(&other)).await;
    assert_eq!(one.stopped.len() + other.stopped.len(), 1);
    world.sweep().await;
    assert_eq!(world.converge(&task).await.finished_tasks.len(), 1);
    let end = "blocked_by_failures 0/2/1 | analyze=complete before=complete work_001=error \
               work_002=error work_003=cancelled | work failed 0/0/2";
    assert_eq!(world.shown(task.id).await, end);
}

/// A member that is to be retried while its batch is stopped: it gets no further attempt.
#[sqlx::test]
async fn a_retry_wakes_while_its_batch_is_stopped(pool: PgPool) {
    let world = World::new(pool).await;
    for wake_first in [true, false] {
        let (task, batch) = world.expand(4).await;
        let retried = FinishedAttempt { ending: Err(failure(true)), ..world.member(batch, 1) };
        world.apply(&[retried]).await;
        make_due(&world).await;
        sqlx::query("update tasker.batches set max_failed = 0")
            .execute(&world.pool)
            .await
            .expect("set");
        world.apply(&[failed(world.member(batch, 0))]).await;
        if wake_first {
            let woken = world.store.wake_retries(10).await.expect("woken");
            assert_eq!(woken, [batch.member(1)]);
            assert!(world.store.load_ready(&woken).await.expect("read").is_empty(), "not sent");
        } else {
            // The sweep has the member and waits for the batch; the timer passes it over.
            let mut holding = world.close(Gate::Batch(batch)).await;
            let ((), _) = tokio::join!(
                async {
                    until(&mut world.connection().await, WAITING).await;
                    assert_eq!(world.store.wake_retries(10).await.expect("read"), []);
                    sqlx::query("rollback").execute(&mut holding).await.expect("opened");
                },
                world.store.cancel_members(10)
            );
        }
        world.sweep().await;
        assert_eq!(world.store.wake_retries(10).await.expect("read"), []);
        assert_eq!(world.store.find_unsent(0, 10).await.expect("read"), []);
        world.converge(&task).await;
        let end = "blocked_by_failures 0/2/1 | analyze=complete before=complete work_001=error \
                   work_002=cancelled work_003=cancelled work_004=cancelled | work failed 0/0/1";
        assert_eq!(world.shown(task.id).await, end, "wake first: {wake_first}");
    }
}

/// A sweep that found a stopped batch comes to it after the batch was retried: it must not cancel
/// members that run again.
#[sqlx::test]
async fn a_batch_is_retried_while_a_sweep_comes_to_it(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = stopped(&world).await;
    let mut holding = world.connection().await;
    let mut retrying = holding.begin().await.expect("begun");
    // What a retry does to the row.
    sqlx::query("update tasker.batches set state = 'sealed', failed = 0, remaining = 4")
        .execute(&mut *retrying)
        .await
        .expect("retried");
    sqlx::query("delete from tasker.outcomes where step_id = $1")
        .bind(batch.member(0).as_uuid())
        .execute(&mut *retrying)
        .await
        .expect("retried");
    let (swept, ()) = tokio::join!(world.store.cancel_members(10), async {
        until(&mut world.connection().await, WAITING).await;
        retrying.commit().await.expect("committed");
    });
    assert!(!swept.expect("swept"), "nothing of it");
    let end = "in_progress 1/2/0 | analyze=complete before=complete work_001=enqueued \
               work_002=enqueued work_003=enqueued work_004=enqueued | work sealed 4/0/0";
    assert_eq!(world.shown(task.id).await, end);
}

/// A stopped batch is retried while it is settled: not before, since the count of what failed is
/// corrected by what is settled; afterwards all of it runs that has not succeeded.
#[sqlx::test]
async fn a_stopped_batch_is_retried_while_it_is_settled(pool: PgPool) {
    let world = World::new(pool).await;
    for retry_first in [true, false] {
        let (task, batch) = stopped(&world).await;
        world.apply(&[world.member(batch, 1)]).await;
        world.sweep().await;
        let (gate, retry) = (Gate::Task(task.id), RepairTarget::Batch(batch));
        let (retried, settled) = if retry_first {
            world.in_order(gate, world.repair(&task, retry), world.converge(&task)).await
        } else {
            let (c, r) =
                world.in_order(gate, world.converge(&task), world.repair(&task, retry)).await;
            (r, c)
        };
        assert_eq!((settled.settled_batches, settled.finished_tasks.len()), (1, 1));
        let (answer, end) = if retry_first {
            let end = "blocked_by_failures 0/2/1 | analyze=complete before=complete \
                       work_001=error work_002=complete work_003=cancelled work_004=cancelled | \
                       work failed 0/1/1";
            (Err("UNAVAILABLE".to_owned()), end)
        } else {
            let end = "in_progress 1/2/0 | analyze=complete before=complete work_001=enqueued \
                       work_002=complete work_003=enqueued work_004=enqueued | \
                       work sealed 3/1/0";
            (Ok(vec![(batch, 3)]), end)
        };
        assert_eq!(retried.map(|done| done.batches), answer);
        assert_eq!(world.shown(task.id).await, end);
    }
}

async fn make_due(world: &World) {
    sqlx::query("update tasker.steps set run_after = now() where run_after is not null")
        .execute(&world.pool)
        .await
        .expect("due");
}

async fn claim(world: &World, step_id: StepId, dispatch_seq: u32) -> ClaimVerdict {
    let claim = [Claim { step_id, dispatch_seq, redelivered: false, begun: None }];
    let granted = world.store.claim_steps(&ns(), world.worker, &claim, &TERMS, None).await;
    granted.expect("decided").verdicts[0]
}

const WAKE: &str = include_str!("../../../queries/dispatch/wake_retries.sql");

/// A timer wakes a step while it is claimed: by the message of the attempt that failed nothing may run,
/// before or after; and the step is woken once.
#[sqlx::test]
async fn a_retry_wakes_while_it_is_claimed(pool: PgPool) {
    let world = World::new(pool).await;
    let (_, batch) = world.expand(1).await;
    let step = batch.member(0);
    let report = FinishedAttempt { ending: Err(failure(true)), ..world.member(batch, 0) };
    world.apply(&[report]).await;
    make_due(&world).await;

    // A claim is at it: the timer passes it over and finds it the next time.
    let mut claiming = world.close(Gate::Step(step)).await;
    assert_eq!(world.store.wake_retries(10).await.expect("read"), []);
    sqlx::query("rollback").execute(&mut claiming).await.expect("released");
    assert_eq!(claim(&world, step, 1).await, ClaimVerdict::Drop(DropReason::Superseded));
    assert_eq!(claim(&world, step, 2).await, ClaimVerdict::Drop(DropReason::Unknown), "not due");

    // The timer is at it: a claim waits, and another timer does not.
    let mut waking = claiming.begin().await.expect("begun");
    let woken: Vec<Uuid> =
        sqlx::query_scalar(WAKE).bind(10_i64).fetch_all(&mut *waking).await.expect("woken");
    assert_eq!(woken, [step.as_uuid()]);
    assert_eq!(world.store.wake_retries(10).await.expect("read"), []);
    let (old, new, ()) = tokio::join!(claim(&world, step, 1), claim(&world, step, 2), async {
        until(&mut world.connection().await, WAITING).await;
        waking.commit().await.expect("committed");
    });
    assert_eq!(old, ClaimVerdict::Drop(DropReason::Superseded));
    assert_eq!(new, ClaimVerdict::Run { attempt: 3, tries: 1 });
    assert_eq!(world.store.wake_retries(10).await.expect("read"), []);
    world.assert_consistent().await;
}

/// `note` makes sealing count steps of the task.
const NOTED: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: s, type: batchable, handler: {callable: t}}
  - {name: w, type: batch_worker, dependencies: [s], handler: {callable: t}}
  - {name: note, dependencies: [s], handler: {callable: t}}
  - {name: j, type: deferred_convergence, dependencies: [w], handler: {callable: t}}
";

/// Rule 5: a task is cancelled while a batch of it is sealed. Either there are members and they are
/// cancelled, or there are none.
#[sqlx::test]
async fn a_task_is_cancelled_while_a_batch_is_sealed(pool: PgPool) {
    let world = World::of(pool, NOTED).await;
    for cancel_first in [true, false] {
        let task = world.submit().await;
        world.done(&task, &["s"]).await;
        let batch = world.split(&task, "s", 2).await;
        let gate = Gate::Task(task.id);
        let (sealed, end) = if cancel_first {
            let (_, s) = world.in_order(gate, world.cancel(&task), world.seal(&batch)).await;
            (s, "cancelled 1/2/0 | note=cancelled s=complete")
        } else {
            let (s, _) = world.in_order(gate, world.seal(&batch), world.cancel(&task)).await;
            let end = "cancelled 2/1/0 | note=cancelled s=complete w_001=cancelled \
                       w_002=cancelled | w cancelled 0/0/0";
            (s, end)
        };
        assert_eq!(sealed.batches.len(), usize::from(!cancel_first));
        assert_eq!(told(world.id(&task, "note"), &[&sealed]), usize::from(!cancel_first));
        world.sweep().await;
        assert_eq!(world.shown(task.id).await, end);
    }
}

/// Two nodes seal one expansion: the second finds it done, and the analyzer's children come once.
#[sqlx::test]
async fn two_nodes_seal_one_batch(pool: PgPool) {
    let world = World::of(pool, NOTED).await;
    let task = world.submit().await;
    world.done(&task, &["s"]).await;
    let (one, other) = (world.split(&task, "s", 2).await, world.split(&task, "s", 2).await);
    let gate = Gate::Task(task.id);
    let (first, second) = world.in_order(gate, world.seal(&one), world.seal(&other)).await;
    assert_eq!((first.batches, second.batches.len()), (vec![one.id], 0));
    assert_eq!(first.ready.len() + second.ready.len(), 1);
    let end = "in_progress 2/1/0 | note=enqueued s=complete w_001=enqueued w_002=enqueued | \
               w sealed 2/0/0";
    assert_eq!(world.shown(task.id).await, end);
}
