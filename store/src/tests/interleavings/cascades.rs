//! Repairs that take back what a convergence has made of a failure: DESIGN section 4, rule 4.

use sqlx::PgPool;
use tasker_messages::{BatchId, StepId, TaskState, Verdict};
use tasker_workflow::RepairAction;

use super::{Gate, failed};
use crate::tests::World;
use crate::{FinishedAttempt, NewTask, RepairDone, RepairTarget};

fn second(attempt: FinishedAttempt) -> FinishedAttempt {
    FinishedAttempt { attempt: 2, dispatch_seq: 2, ..attempt }
}

impl World {
    async fn cascade(&self, task: &NewTask, step: StepId) -> Result<RepairDone, String> {
        let target = RepairTarget::Step(step, RepairAction::Reset, None);
        self.repair_with(task, target, true).await
    }

    /// A batch of which the first of two members has failed, and the aggregator is there.
    async fn joined(&self) -> (NewTask, BatchId) {
        let (task, batch) = self.expand(2).await;
        self.apply(&[failed(self.member(batch, 0)), self.member(batch, 1)]).await;
        assert_eq!(self.converge(&task).await.ready.len(), 1);
        (task, batch)
    }
}

/// An aggregator that is being created runs beside the member if the repair does not see it: the repair
/// waits for it and is refused, or comes before it, and there is nothing to take back.
#[sqlx::test]
async fn a_cascade_while_the_aggregator_is_created(pool: PgPool) {
    let world = World::new(pool).await;
    for cascade_first in [true, false] {
        let (task, batch) = world.expand(2).await;
        world.apply(&[failed(world.member(batch, 0)), world.member(batch, 1)]).await;
        let (gate, member) = (Gate::Task(task.id), batch.member(0));
        let cascade = world.cascade(&task, member);
        let (ready, answer) = if cascade_first {
            let (done, converged) = world.in_order(gate, cascade, world.converge(&task)).await;
            (converged.ready.len(), done.map(|done| done.taken_back))
        } else {
            let (converged, done) = world.in_order(gate, world.converge(&task), cascade).await;
            (converged.ready.len(), done.map(|done| done.taken_back))
        };
        let expect = match cascade_first {
            true => (0, Ok(0)),
            false => (1, Err("DESCENDANT_RUNS".to_owned())),
        };
        assert_eq!((ready, answer), expect);
    }
}

/// The aggregator ends while the repair comes: it is taken back with its result, or it runs still and
/// nothing happens to it.
#[sqlx::test]
async fn a_cascade_while_the_aggregator_ends(pool: PgPool) {
    let world = World::new(pool).await;
    for cascade_first in [true, false] {
        let (task, batch) = world.joined().await;
        let join = world.found(&task, "join").await;
        let ends = [world.attempt(&task, "join").await];
        let (cascade, apply) = (world.cascade(&task, batch.member(0)), world.apply(&ends));
        if cascade_first {
            // The repair is refused before it needs the task's row: it queues for the aggregator's.
            let (done, applied) = world.in_order(Gate::Step(join), cascade, apply).await;
            assert_eq!(done.expect_err("it runs"), "DESCENDANT_RUNS");
            assert_eq!(applied.verdicts, [Verdict::Applied]);
            let shown = "in_progress 1/0/0 | after=enqueued analyze=complete before=complete \
                         join=complete work_001=error work_002=complete | work converged 0/1/1";
            assert_eq!(world.shown(task.id).await, shown);
        } else {
            let (applied, done) = world.in_order(Gate::Task(task.id), apply, cascade).await;
            // What follows the aggregator is ready by then: it is not taken from whoever runs it.
            assert_eq!(applied.verdicts, [Verdict::Applied]);
            assert_eq!(done.expect_err("its child is ready"), "DESCENDANT_RUNS");
        }
    }
}

/// Two failed members are repaired at once: one takes the aggregator back, the other finds none.
#[sqlx::test]
async fn two_cascades(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = world.expand(3).await;
    let ends =
        [failed(world.member(batch, 0)), failed(world.member(batch, 1)), world.member(batch, 2)];
    world.apply(&ends).await;
    world.converge(&task).await;
    world.done(&task, &["join", "after"]).await;
    assert_eq!(world.state(task.id).await, TaskState::Complete.as_str());
    let (one, other) = world
        .in_order(
            Gate::Task(task.id),
            world.cascade(&task, batch.member(0)),
            world.cascade(&task, batch.member(1)),
        )
        .await;
    let taken_back = |done: Result<RepairDone, String>| done.map(|done| done.taken_back);
    assert_eq!((taken_back(one), taken_back(other)), (Ok(2), Ok(0)));
    let open = "in_progress 1/2/0 | analyze=complete before=complete work_001=enqueued \
                work_002=enqueued work_003=complete | work sealed 2/1/0";
    assert_eq!(world.shown(task.id).await, open);
}

const BEHIND: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: bad, handler: {callable: t}}
  - {name: good, handler: {callable: t}}
  - {name: join, type: deferred_convergence, dependencies: [bad, good], handler: {callable: t}}
  - {name: choose, type: decision, dependencies: [join], handler: {callable: t}}
  - {name: left, dependencies: [choose], handler: {callable: t}}
  - {name: right, dependencies: [choose], handler: {callable: t}}
  - {name: split, type: batchable, dependencies: [join], handler: {callable: t}}
  - {name: part, type: batch_worker, dependencies: [split], handler: {callable: t}}
  - {name: all, type: deferred_convergence, dependencies: [left, right, part],
     handler: {callable: t}}
";

/// All that is behind the convergence goes, batches and branches that were not taken among it; it comes
/// anew under other ids, and a message or result of before means nothing any more.
#[sqlx::test]
async fn everything_behind_comes_anew(pool: PgPool) {
    let world = World::of(pool, BEHIND).await;
    let task = world.submit().await;
    let bad = world.id(&task, "bad");
    world.done(&task, &["good"]).await;
    world.apply(&[failed(world.attempt(&task, "bad").await)]).await;
    let old = world.play_behind(&task, "left").await;
    assert_eq!(world.state(task.id).await, TaskState::Error.as_str());
    let done = world.cascade(&task, bad).await.expect("allowed");
    // join, choose, left, split, two members, all.
    assert_eq!((done.taken_back, done.steps.as_slice()), (7, [bad].as_slice()));
    assert_eq!(world.shown(task.id).await, "in_progress 1/6/0 | bad=enqueued good=complete");
    let left_over = "select (select count(*) from tasker.outcomes) + (select count(*) from \
                     tasker.batches) + (select count(*) from tasker.step_edges)";
    assert_eq!(world.count(left_over).await, 1, "the outcome of `good` alone");
    assert_eq!(world.apply(&old).await.verdicts, vec![Verdict::Unknown; old.len()]);
    let noted = "select count(*) from tasker.admin_actions where action = 'take_back' \
                 and reason in ('`join` was complete, attempt 1: test', \
                                '`left` was complete, attempt 1: test')";
    assert_eq!(world.count(noted).await, 2);

    world.apply(&[second(world.attempt(&task, "bad").await)]).await;
    world.play_behind(&task, "right").await;
    let shown = "complete 0/0/0 | all=complete bad=complete choose=complete good=complete \
                 join=complete part_001=complete part_002=complete right=complete split=complete \
                 | part converged 0/2/0";
    assert_eq!(world.shown(task.id).await, shown);
}

impl World {
    /// Ends all behind `join`; answers with what was reported.
    async fn play_behind(&self, task: &NewTask, branch: &str) -> Vec<FinishedAttempt> {
        assert_eq!(self.converge(task).await.ready.len(), 1);
        let mut reported = vec![self.attempt(task, "join").await];
        self.apply(&reported).await;
        reported.push(self.choice(task, "choose", &[branch]).await);
        self.apply(&reported[1..]).await;
        self.converge(task).await;
        let batch = self.sealed(task, "split", 2).await;
        let ends = [self.attempt(task, branch).await, self.member(batch, 0), self.member(batch, 1)];
        self.apply(&ends).await;
        assert_eq!(self.converge(task).await.ready.len(), 1);
        reported.extend(ends);
        reported.push(self.attempt(task, "all").await);
        self.apply(&reported[reported.len() - 1..]).await;
        reported
    }
}
