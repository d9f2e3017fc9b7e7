//! Repairs by hand against what still goes on: DESIGN section 4, rules 3 and 4.

use sqlx::PgPool;
use tasker_messages::{StepKind, TaskState, Verdict};
use tasker_workflow::RepairAction;

use super::{Gate, ORDERS, failed, told};
use crate::tests::World;
use crate::{FinishedAttempt, RepairTarget};

fn second(attempt: FinishedAttempt) -> FinishedAttempt {
    FinishedAttempt { attempt: 2, dispatch_seq: 2, ..attempt }
}

/// Rule 4: a failed member is reset while its batch converges. Either the aggregator has run with the
/// failure and the reset is refused, or the batch is open again and the aggregator waits; an aggregator
/// beside a running member would read pages that change.
#[sqlx::test]
async fn a_member_is_reset_while_its_batch_converges(pool: PgPool) {
    let world = World::new(pool).await;
    let steps = "analyze=complete before=complete";
    for reset_first in [true, false] {
        let (task, batch) = world.expand(2).await;
        let ends = [failed(world.member(batch, 0)), world.member(batch, 1)];
        assert_eq!(world.apply(&ends).await.emptied.len(), 1);
        let (gate, member) = (Gate::Task(task.id), batch.member(0));
        if reset_first {
            let (reset, converged) =
                world.in_order(gate, world.reset(&task, member), world.converge(&task)).await;
            reset.expect("allowed");
            assert_eq!((converged.ready.len(), converged.settled_batches), (0, 0));
            let open = format!(
                "in_progress 1/2/0 | {steps} work_001=enqueued work_002=complete | \
                 work sealed 1/1/0"
            );
            assert_eq!(world.shown(task.id).await, open);
            world.apply(&[second(world.member(batch, 0))]).await;
            let join = world.converge(&task).await.ready_ids();
            assert_eq!(join, [world.found(&task, "join").await]);
        } else {
            let (converged, reset) =
                world.in_order(gate, world.converge(&task), world.reset(&task, member)).await;
            assert_eq!(reset.expect_err("too late"), "AGGREGATOR_RAN");
            assert_eq!(converged.ready.len(), 1);
            let ran = format!(
                "in_progress 1/1/0 | after=pending {steps} join=enqueued work_001=error \
                 work_002=complete | work converged 0/1/1"
            );
            assert_eq!(world.shown(task.id).await, ran);
        }
    }
}

const PARENTS: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: bad, handler: {callable: t}}
  - {name: good, handler: {callable: t}}
  - {name: join, type: deferred_convergence, dependencies: [bad, good], handler: {callable: t}}
";

/// Rule 4 and rule 6: the same with a failed static parent; a reset counts it as not ended again.
#[sqlx::test]
async fn a_parent_is_reset_while_its_join_is_created(pool: PgPool) {
    let world = World::of(pool, PARENTS).await;
    for reset_first in [true, false] {
        let task = world.submit().await;
        world.done(&task, &["good"]).await;
        world.apply(&[failed(world.attempt(&task, "bad").await)]).await;
        let (gate, bad) = (Gate::Task(task.id), world.id(&task, "bad"));
        let (reset, converged) = if reset_first {
            world.in_order(gate, world.reset(&task, bad), world.converge(&task)).await
        } else {
            let (c, r) = world.in_order(gate, world.converge(&task), world.reset(&task, bad)).await;
            (r, c)
        };
        let (ready, end) = match reset_first {
            true => (0, "in_progress 1/1/0 | bad=enqueued good=complete"),
            false => (1, "in_progress 1/0/1 | bad=error good=complete join=enqueued"),
        };
        assert_eq!(converged.ready.len(), ready);
        let answer = reset.map(|done| told(bad, &[&done]));
        assert_eq!(answer, if reset_first { Ok(1) } else { Err("AGGREGATOR_RAN".to_owned()) });
        assert_eq!(world.shown(task.id).await, end);
        if reset_first {
            world.apply(&[second(world.attempt(&task, "bad").await)]).await;
            assert_eq!(world.converge(&task).await.ready.len(), 1);
        }
    }
}

/// Rule 3: a member is reset while the last other one ends. The counters move by what each of the two
/// has changed, so the batch is not empty afterwards.
#[sqlx::test]
async fn a_member_is_reset_while_another_ends(pool: PgPool) {
    let world = World::new(pool).await;
    for reset_first in [true, false] {
        let (task, batch) = world.expand(2).await;
        world.apply(&[failed(world.member(batch, 0))]).await;
        let (member, last) = (batch.member(0), [world.member(batch, 1)]);
        let (reset, outcome) = if reset_first {
            let gate = Gate::Task(task.id);
            world.in_order(gate, world.reset(&task, member), world.apply(&last)).await
        } else {
            let gate = Gate::Batch(batch);
            let (o, r) = world.in_order(gate, world.apply(&last), world.reset(&task, member)).await;
            (r, o)
        };
        reset.expect("allowed");
        assert_eq!(outcome.emptied.len(), usize::from(!reset_first));
        assert_eq!(world.converge(&task).await.ready_ids(), [], "whoever told, or not");
        let end = "in_progress 1/2/0 | analyze=complete before=complete work_001=enqueued \
                   work_002=complete | work sealed 1/1/0";
        assert_eq!(world.shown(task.id).await, end, "reset first: {reset_first}");
    }
}

/// A failed member is counted as done by hand while the last other one ends: whichever of the two leaves
/// none, the aggregator comes once.
#[sqlx::test]
async fn a_member_is_resolved_while_another_ends(pool: PgPool) {
    let world = World::new(pool).await;
    for resolve_first in [true, false] {
        let (task, batch) = world.expand(2).await;
        world.apply(&[failed(world.member(batch, 0))]).await;
        let resolve = RepairTarget::Step(batch.member(0), RepairAction::Resolve, None);
        let last = [world.member(batch, 1)];
        let (resolved, outcome) = if resolve_first {
            let gate = Gate::Task(task.id);
            world.in_order(gate, world.repair(&task, resolve), world.apply(&last)).await
        } else {
            let gate = Gate::Batch(batch);
            let (o, r) =
                world.in_order(gate, world.apply(&last), world.repair(&task, resolve)).await;
            (r, o)
        };
        let resolved = resolved.expect("allowed");
        assert_eq!(outcome.emptied.len(), 1);
        let converged = world.converge(&task).await;
        let join = world.found(&task, "join").await;
        assert_eq!(told(join, &[&resolved, &outcome, &converged]), 1);
        let end = "in_progress 1/1/0 | after=pending analyze=complete before=complete \
                   join=enqueued work_001=resolved_manually work_002=complete | \
                   work converged 0/2/0";
        assert_eq!(world.shown(task.id).await, end, "resolve first: {resolve_first}");
    }
}

const TWO: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: bad, handler: {callable: t}}
  - {name: good, handler: {callable: t}}
";

/// The last step of a task ends while a failed one is reset: the task ends and is revived, or it never
/// ends; it must not stay ended with a step that runs, nor run without one.
#[sqlx::test]
async fn a_task_ends_while_it_is_repaired(pool: PgPool) {
    let world = World::of(pool, TWO).await;
    for (reset_first, in_sets) in ORDERS {
        world.store_in_sets(in_sets);
        let task = world.submit().await;
        world.apply(&[failed(world.attempt(&task, "bad").await)]).await;
        let (gate, bad) = (Gate::Task(task.id), world.id(&task, "bad"));
        let last = [world.attempt(&task, "good").await];
        let (reset, outcome) = if reset_first {
            world.in_order(gate, world.reset(&task, bad), world.apply(&last)).await
        } else {
            let (o, r) = world.in_order(gate, world.apply(&last), world.reset(&task, bad)).await;
            (r, o)
        };
        assert_eq!(told(bad, &[&reset.expect("allowed")]), 1);
        let ends: Vec<TaskState> = outcome.finished_tasks.iter().map(|t| t.state).collect();
        assert_eq!(ends, if reset_first { vec![] } else { vec![TaskState::Error] });
        let end = "in_progress 1/0/0 | bad=enqueued good=complete";
        assert_eq!(world.shown(task.id).await, end, "reset first: {reset_first}");
        let applied = world.apply(&[second(world.attempt(&task, "bad").await)]).await;
        assert_eq!(applied.finished_tasks[0].state, TaskState::Complete);
    }
}

/// Two people repair one step in different ways: the second is told that it has not failed.
#[sqlx::test]
async fn one_step_is_repaired_twice(pool: PgPool) {
    let world = World::of(pool, TWO).await;
    for reset_first in [true, false] {
        let task = world.submit().await;
        world.done(&task, &["good"]).await;
        world.apply(&[failed(world.attempt(&task, "bad").await)]).await;
        let (gate, bad) = (Gate::Task(task.id), world.id(&task, "bad"));
        let resolve = RepairTarget::Step(bad, RepairAction::Resolve, None);
        let (one, other, end) = if reset_first {
            let (reset, resolve) =
                world.in_order(gate, world.reset(&task, bad), world.repair(&task, resolve)).await;
            (reset, resolve, "in_progress 1/0/0 | bad=enqueued good=complete")
        } else {
            let (resolve, reset) =
                world.in_order(gate, world.repair(&task, resolve), world.reset(&task, bad)).await;
            (resolve, reset, "complete 0/0/0 | bad=resolved_manually good=complete")
        };
        one.expect("allowed");
        assert_eq!(other.expect_err("it is repaired"), "STEP_NOT_FAILED");
        assert_eq!(world.shown(task.id).await, end);
        let audited = "select count(*) from tasker.admin_actions";
        assert_eq!(world.count(audited).await, if reset_first { 1 } else { 2 }, "one each");
    }
}

/// A report that was sent again for lack of an answer meets the repair of its step: it must not end
/// the attempt that the repair has begun.
#[sqlx::test]
async fn a_repeated_report_does_not_end_what_was_repaired(pool: PgPool) {
    let world = World::of(pool, TWO).await;
    for reset_first in [true, false] {
        let task = world.submit().await;
        world.done(&task, &["good"]).await;
        let report = [failed(world.attempt(&task, "bad").await)];
        world.apply(&report).await;
        let bad = world.id(&task, "bad");
        let (reset, again, verdict) = if reset_first {
            let gate = Gate::Task(task.id);
            let (r, a) = world.in_order(gate, world.reset(&task, bad), world.apply(&report)).await;
            (r, a, Verdict::Stale { superseded: true })
        } else {
            let gate = Gate::Step(bad);
            let (a, r) = world.in_order(gate, world.apply(&report), world.reset(&task, bad)).await;
            (r, a, Verdict::Duplicate)
        };
        reset.expect("allowed");
        assert_eq!(again.verdicts, [verdict]);
        let end = "in_progress 1/0/0 | bad=enqueued good=complete";
        assert_eq!(world.shown(task.id).await, end, "reset first: {reset_first}");
    }
}

/// A task is cancelled while one of its members is reset: nothing of it is left to run.
#[sqlx::test]
async fn a_task_is_cancelled_while_it_is_repaired(pool: PgPool) {
    let world = World::new(pool).await;
    for reset_first in [true, false] {
        let (task, batch) = world.expand(2).await;
        world.apply(&[failed(world.member(batch, 0))]).await;
        let (gate, member) = (Gate::Task(task.id), batch.member(0));
        let reset = if reset_first {
            world.in_order(gate, world.reset(&task, member), world.cancel(&task)).await.0
        } else {
            world.in_order(gate, world.cancel(&task), world.reset(&task, member)).await.1
        };
        let refused = reset.map(drop).err();
        assert_eq!(refused.as_deref(), if reset_first { None } else { Some("TASK_ENDED") });
        world.sweep().await;
        let shown = world.shown(task.id).await;
        let (first, numbers) =
            if reset_first { ("cancelled", "0/0/0") } else { ("error", "0/0/1") };
        let end = format!(
            "analyze=complete before=complete work_001={first} work_002=cancelled | \
             work cancelled {numbers}"
        );
        assert!(shown.starts_with("cancelled ") && shown.ends_with(&end), "{shown}");
    }
}

/// A failed decision gets a result by hand while its task converges on its failure: branches come once.
#[sqlx::test]
async fn a_decision_is_completed_while_its_failure_is_settled(pool: PgPool) {
    const ROUTE: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: route, type: decision, handler: {callable: t}}
  - {name: good, handler: {callable: t}}
  - {name: left, dependencies: [route], handler: {callable: t}}
";
    let world = World::of(pool, ROUTE).await;
    let left = r#"{"decision_point_outcome":{"type":"create_steps","step_names":["left"]}}"#;
    for repair_first in [true, false] {
        let task = world.submit().await;
        world.done(&task, &["good"]).await;
        let route = world.id(&task, "route");
        world.apply(&[failed(world.finished(route, StepKind::Decision, 1))]).await;
        let complete = RepairTarget::Step(route, RepairAction::Complete, Some(left.into()));
        let gate = Gate::Task(task.id);
        let (repaired, converged) = if repair_first {
            world.in_order(gate, world.repair(&task, complete), world.converge(&task)).await
        } else {
            let (c, r) =
                world.in_order(gate, world.converge(&task), world.repair(&task, complete)).await;
            (r, c)
        };
        let repaired = repaired.expect("allowed");
        let ends = converged.finished_tasks.len();
        assert_eq!(ends, usize::from(!repair_first), "ended blocked before it was repaired");
        let again = world.converge(&task).await;
        assert_eq!(told(world.found(&task, "left").await, &[&repaired, &converged, &again]), 1);
        let end = "in_progress 1/0/0 | good=complete left=enqueued route=complete";
        assert_eq!(world.shown(task.id).await, end, "repair first: {repair_first}");
    }
}
