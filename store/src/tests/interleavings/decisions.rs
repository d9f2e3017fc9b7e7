//! Decisions against whatever ends at the same time: undecided, created, never.

use sqlx::{PgConnection, PgPool};
use tasker_messages::{TaskState, Verdict};

use super::{Gate, ORDERS, WAITING, WAITING_BEHIND_A_WAITING_ONE, failed, told, until};
use crate::NewTask;
use crate::tests::World;

/// `side` is looked at by converging, so that there is something to converge before `route` has ended.
const BRANCHES: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: before, handler: {callable: t}}
  - {name: side, handler: {callable: t}}
  - {name: route, type: decision, handler: {callable: t}}
  - {name: left, dependencies: [route, before], handler: {callable: t}}
  - {name: right, dependencies: [route], handler: {callable: t}}
  - {name: join, type: deferred_convergence, dependencies: [left, right], handler: {callable: t}}
  - {name: tail, type: deferred_convergence, dependencies: [side, right], handler: {callable: t}}
";

/// The last static parent ends while the branch that waits for it is created. The edge is not there
/// when the outcome's statement begins: overlooked, the branch would wait for ever; counted twice, it
/// would be announced twice.
#[sqlx::test]
async fn a_branch_is_created_while_its_static_parent_ends(pool: PgPool) {
    let world = World::of(pool, BRANCHES).await;
    for (outcome_first, in_sets) in ORDERS {
        world.store_in_sets(in_sets);
        let task = world.submit().await;
        let choice = world.choice(&task, "route", &["left"]).await;
        world.apply(&[choice]).await;
        let last = [world.attempt(&task, "before").await];
        let gate = Gate::Task(task.id);
        let (outcome, converged) = if outcome_first {
            world.in_order(gate, world.apply(&last), world.converge(&task)).await
        } else {
            let (c, o) = world.in_order(gate, world.converge(&task), world.apply(&last)).await;
            (o, c)
        };
        let by_converging = usize::from(outcome_first);
        assert_eq!(
            (outcome.ready.len(), converged.ready.len()),
            (1 - by_converging, by_converging)
        );
        assert_eq!(told(world.found(&task, "left").await, &[&outcome, &converged]), 1);
        let end = "in_progress 2/2/0 | before=complete left=enqueued route=complete side=enqueued";
        assert_eq!(world.shown(task.id).await, end, "outcome first: {outcome_first}");
    }
}

/// The same with a parent that fails: the branch is there and waits behind the failure.
#[sqlx::test]
async fn a_branch_is_created_while_its_static_parent_fails(pool: PgPool) {
    let world = World::of(pool, BRANCHES).await;
    for outcome_first in [true, false] {
        let task = world.submit().await;
        let choice = world.choice(&task, "route", &["left"]).await;
        world.apply(&[choice]).await;
        let last = [failed(world.attempt(&task, "before").await)];
        let gate = Gate::Task(task.id);
        let (outcome, converged) = if outcome_first {
            world.in_order(gate, world.apply(&last), world.converge(&task)).await
        } else {
            let (c, o) = world.in_order(gate, world.converge(&task), world.apply(&last)).await;
            (o, c)
        };
        assert_eq!((outcome.ready.len(), converged.ready.len()), (0, 0));
        let end = "in_progress 1/3/1 | before=error left=pending route=complete side=enqueued";
        assert_eq!(world.shown(task.id).await, end, "outcome first: {outcome_first}");
    }
}

/// Rule 5: a decision ends while its task converges for another reason. Its place in the count stays
/// until its branches are there, whichever of the two acts on the choice.
#[sqlx::test]
async fn a_decision_ends_while_its_task_converges(pool: PgPool) {
    let world = World::of(pool, BRANCHES).await;
    for (outcome_first, in_sets) in ORDERS {
        world.store_in_sets(in_sets);
        let task = world.submit().await;
        world.done(&task, &["before", "side"]).await;
        let choice = [world.choice(&task, "route", &["left", "right"]).await];
        let gate = Gate::Task(task.id);
        let (outcome, converged) = if outcome_first {
            world.in_order(gate, world.apply(&choice), world.converge(&task)).await
        } else {
            let (c, o) = world.in_order(gate, world.converge(&task), world.apply(&choice)).await;
            (o, c)
        };
        let ends = outcome.finished_tasks.len() + converged.finished_tasks.len();
        assert_eq!(ends, 0, "what was chosen is still to come");
        let again = world.converge(&task).await;
        for branch in ["left", "right"] {
            let branch = world.found(&task, branch).await;
            assert_eq!(told(branch, &[&outcome, &converged, &again]), 1);
        }
        let end = "in_progress 2/2/0 | before=complete left=enqueued right=enqueued \
                   route=complete side=complete";
        assert_eq!(world.shown(task.id).await, end, "outcome first: {outcome_first}");
    }
}

/// A decision that creates nothing takes `right` out of what `tail` waits for while the last that it
/// does wait for ends. Marked *never* in the same transaction that looks, `tail` runs exactly once;
/// `join`, of which nothing is left, leaves the count.
#[sqlx::test]
async fn a_decision_creates_nothing_while_a_parent_ends(pool: PgPool) {
    let world = World::of(pool, BRANCHES).await;
    for (outcome_first, in_sets) in ORDERS {
        world.store_in_sets(in_sets);
        let task = world.submit().await;
        let none = world.choice(&task, "route", &[]).await;
        world.apply(&[none]).await;
        let last = [world.attempt(&task, "side").await];
        let gate = Gate::Task(task.id);
        let (outcome, converged) = if outcome_first {
            world.in_order(gate, world.apply(&last), world.converge(&task)).await
        } else {
            let (c, o) = world.in_order(gate, world.converge(&task), world.apply(&last)).await;
            assert_eq!(c.ready_ids(), [], "`side` runs");
            (o, c)
        };
        let again = world.converge(&task).await;
        assert_eq!(told(world.found(&task, "tail").await, &[&outcome, &converged, &again]), 1);
        let end = "in_progress 2/0/0 | before=enqueued route=complete side=complete tail=enqueued";
        assert_eq!(world.shown(task.id).await, end, "outcome first: {outcome_first}");
    }
}

/// Everything that a task still waits for turns out never to exist, while its last step ends: exactly
/// one of the two transactions ends the task.
#[sqlx::test]
async fn a_task_ends_once_when_nothing_is_chosen(pool: PgPool) {
    const ALONE: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: before, handler: {callable: t}}
  - {name: route, type: decision, handler: {callable: t}}
  - {name: left, dependencies: [route], handler: {callable: t}}
  - {name: join, type: deferred_convergence, dependencies: [left], handler: {callable: t}}
  - {name: behind, dependencies: [join], handler: {callable: t}}
";
    let world = World::of(pool, ALONE).await;
    for (outcome_first, in_sets) in ORDERS {
        world.store_in_sets(in_sets);
        let task = world.submit().await;
        let none = world.choice(&task, "route", &[]).await;
        world.apply(&[none]).await;
        let last = [world.attempt(&task, "before").await];
        let gate = Gate::Task(task.id);
        let (outcome, converged) = if outcome_first {
            world.in_order(gate, world.apply(&last), world.converge(&task)).await
        } else {
            let (c, o) = world.in_order(gate, world.converge(&task), world.apply(&last)).await;
            (o, c)
        };
        let ends: Vec<TaskState> = outcome
            .finished_tasks
            .iter()
            .chain(&converged.finished_tasks)
            .map(|t| t.state)
            .collect();
        assert_eq!(ends, [TaskState::Complete], "outcome first: {outcome_first}");
        let end = "complete 0/0/0 | before=complete route=complete";
        assert_eq!(world.shown(task.id).await, end);
    }
}

/// A decision creates a batchable step; a static parent and that batch meet in one aggregator.
const DYNAMIC: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: a, handler: {callable: t}}
  - {name: route, type: decision, handler: {callable: t}}
  - {name: s, type: batchable, dependencies: [route], handler: {callable: t}}
  - {name: w, type: batch_worker, dependencies: [s], handler: {callable: t}}
  - {name: other, dependencies: [route], handler: {callable: t}}
  - {name: j, type: deferred_convergence, dependencies: [a, w, other], handler: {callable: t}}
";

/// The convergence rule over static and created parents: while `s` is being created the batch is
/// undecided, so the end of `a` must not start `j`, nor that of `s`.
#[sqlx::test]
async fn a_created_batch_is_waited_for(pool: PgPool) {
    let world = World::of(pool, DYNAMIC).await;
    for (outcome_first, in_sets) in ORDERS {
        world.store_in_sets(in_sets);
        let task = world.submit().await;
        let choice = world.choice(&task, "route", &["s"]).await;
        world.apply(&[choice]).await;
        let last = [world.attempt(&task, "a").await];
        let gate = Gate::Task(task.id);
        let (outcome, converged) = if outcome_first {
            world.in_order(gate, world.apply(&last), world.converge(&task)).await
        } else {
            let (c, o) = world.in_order(gate, world.converge(&task), world.apply(&last)).await;
            (o, c)
        };
        assert_eq!(told(world.found(&task, "s").await, &[&outcome, &converged]), 1);
        assert_eq!(world.converge(&task).await.ready_ids(), [], "`s` is there and has not ended");
        let batch = world.sealed(&task, "s", 1).await;
        assert_eq!(world.converge(&task).await.ready_ids(), [], "its batch has not ended");
        world.apply(&[world.member(batch, 0)]).await;
        assert_eq!(world.converge(&task).await.ready_ids(), [world.found(&task, "j").await]);
        let end = "in_progress 1/0/0 | a=complete j=enqueued route=complete s=complete \
                   w_001=complete | w converged 0/1/0";
        assert_eq!(world.shown(task.id).await, end, "outcome first: {outcome_first}");
    }
}

/// Two nodes act on one choice: the branches come once, and what is never leaves the count once.
#[sqlx::test]
async fn two_nodes_act_on_one_choice(pool: PgPool) {
    let world = World::of(pool, BRANCHES).await;
    let task = world.submit().await;
    let choice = world.choice(&task, "route", &["right"]).await;
    world.apply(&[choice]).await;
    let gate = Gate::Task(task.id);
    let (one, other) = world.in_order(gate, world.converge(&task), world.converge(&task)).await;
    assert_eq!(told(world.found(&task, "right").await, &[&one, &other]), 1);
    let end = "in_progress 3/2/0 | before=enqueued right=enqueued route=complete side=enqueued";
    assert_eq!(world.shown(task.id).await, end);
}

/// The child stands before its parent in the document, so it has the lower id.
const BACKWARDS: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: child, dependencies: [parent], handler: {callable: t}}
  - {name: parent, handler: {callable: t}}
  - {name: side, handler: {callable: t}}
  - {name: join, type: deferred_convergence, dependencies: [side, child], handler: {callable: t}}
";

/// Rule 2: outcomes lock parents before their children, converging locks all steps by id. Where a child
/// has the lower id the two can wait for each other; Postgres ends one of them, and it is run again.
#[sqlx::test]
async fn a_deadlock_is_run_again(pool: PgPool) {
    let world = World::of(pool, BACKWARDS).await;
    let task = world.submit().await;
    world.done(&task, &["side"]).await;
    let child = world.id(&task, "child");
    let last = [world.attempt(&task, "parent").await];
    // Converging waits for the child and has nothing yet; the outcome takes the parent and waits for
    // the child as well; then converging has the child and wants the parent.
    let gate = Gate::Step(child);
    let (converged, outcome) =
        world.in_order(gate, world.converge(&task), world.apply(&last)).await;
    assert_eq!(told(child, &[&converged, &outcome]), 1);
    let end = "in_progress 1/1/0 | child=enqueued parent=complete side=complete";
    assert_eq!(world.shown(task.id).await, end);
}

/// Two decisions; the second creates a step behind one that the first has created.
const TWICE: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: again, type: decision, handler: {callable: t}}
  - {name: route, type: decision, handler: {callable: t}}
  - {name: left, dependencies: [route], handler: {callable: t}}
  - {name: deep, dependencies: [left, again], handler: {callable: t}}
";

/// A node waits for the locks of another one that creates `left`, and then hangs `deep` below it. It has
/// not locked `left`, which was not there: unless it starts over, `left` can end unnoticed between its
/// look and its writing, and `deep` waits for ever.
#[sqlx::test]
async fn a_step_that_another_node_creates_is_locked_too(pool: PgPool) {
    let world = World::of(pool, TWICE).await;
    let task = world.submit().await;
    let choice = world.choice(&task, "route", &["left"]).await;
    world.apply(&[choice]).await;
    let mut first_gate = world.close(Gate::Task(task.id)).await;
    // The second node stops where it writes `deep`: somebody else does, and has not decided.
    let mut second_gate = write_deep(&world, &task).await;
    let (mut one, mut two) = (world.connection().await, world.connection().await);
    let second = async {
        until(&mut one, WAITING).await;
        end_again(&world, &task).await;
        world.converge(&task).await
    };
    let ends = async {
        until(&mut two, WAITING_BEHIND_A_WAITING_ONE).await;
        sqlx::query("rollback").execute(&mut first_gate).await.expect("opened");
        while world.store.find_step(task.id, "left").await.expect("read").is_none() {
            tokio::task::yield_now().await;
        }
        until(&mut two, WAITING).await;
        let last = [world.attempt(&task, "left").await];
        let (applied, ()) = tokio::join!(world.apply(&last), async {
            until(&mut two, WAITING_BEHIND_A_WAITING_ONE).await;
            sqlx::query("rollback").execute(&mut second_gate).await.expect("opened");
        });
        applied
    };
    let (first, second, applied) = tokio::join!(world.converge(&task), second, ends);
    assert_eq!(applied.verdicts, [Verdict::Applied]);
    assert_eq!(first.ready_ids(), [world.found(&task, "left").await]);
    assert_eq!(told(world.found(&task, "deep").await, &[&second, &applied]), 1);
    let end = "in_progress 1/0/0 | again=complete deep=enqueued left=complete route=complete";
    assert_eq!(world.shown(task.id).await, end);
}

/// Stores the outcome of `again` without a lock on its step, which somebody holds.
async fn end_again(world: &World, task: &NewTask) {
    let result = r#"{"decision_point_outcome":{"type":"create_steps","step_names":["deep"]}}"#;
    sqlx::query(
        "insert into tasker.outcomes (step_id, state, attempt, result)
         values ($1, 'complete', 1, $2::json)",
    )
    .bind(world.id(task, "again").as_uuid())
    .bind(result)
    .execute(&world.pool)
    .await
    .expect("stored");
}

async fn write_deep(world: &World, task: &NewTask) -> PgConnection {
    let mut writing = world.connection().await;
    sqlx::query("begin").execute(&mut writing).await.expect("begun");
    sqlx::query(
        "insert into tasker.steps (id, task_id, namespace, name, kind, state)
         values (gen_random_uuid(), $1, 'tests', 'deep', 'standard', 'pending')",
    )
    .bind(task.id.as_uuid())
    .execute(&mut writing)
    .await
    .expect("written");
    writing
}
