//! Decisions: branches come once, and what never exists leaves the task's count once.

use sqlx::PgPool;
use tasker_messages::{StepId, StepKind, TaskState, Verdict};

use super::{World, failure};
use crate::{Applied, NewTask};

/// `numbers` is the name that `World` submits.
const TEMPLATE: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: before, handler: {callable: t}}
  - {name: route, type: decision, handler: {callable: t}}
  - {name: left, dependencies: [route, before], handler: {callable: t}}
  - {name: right, dependencies: [route], handler: {callable: t}}
  - {name: join, type: deferred_convergence, dependencies: [left, right], handler: {callable: t}}
";

const LEFT: &str = r#"{"decision_point_outcome":{"type":"create_steps","step_names":["left"]}}"#;
const NONE: &str = r#"{"decision_point_outcome":{"type":"no_branches"}}"#;

async fn decide(world: &World, task: &NewTask, result: &str) -> Applied {
    let mut attempt = world.finished(task.step_ids[1], StepKind::Decision, 1);
    attempt.ending = Ok(result.into());
    let applied = world.apply(&[attempt]).await;
    assert_eq!(applied.verdicts, [Verdict::Applied]);
    assert!(applied.ready.is_empty() && applied.finished_tasks.is_empty(), "{applied:?}");
    assert_eq!(applied.unsettled.iter().map(|s| s.expands).collect::<Vec<_>>(), [false]);
    applied
}

/// Active and pending steps.
async fn counts(world: &World) -> (i64, i64) {
    let active = world.count("select active_steps::bigint from tasker.tasks").await;
    (active, world.count("select pending_steps::bigint from tasker.tasks").await)
}

async fn step(world: &World, task: &NewTask, name: &str) -> StepId {
    let view = world.store.view_task(task.id, None).await.expect("read").expect("there");
    view.steps.iter().find(|step| step.name == name).expect(name).id
}

#[sqlx::test]
async fn a_choice_is_acted_on_once(pool: PgPool) {
    let world = World::of(pool, TEMPLATE).await;
    let task = world.submit().await;
    assert_eq!(counts(&world).await, (2, 3));
    decide(&world, &task, LEFT).await;
    assert_eq!(counts(&world).await, (2, 3), "nothing is counted before it is settled");
    assert_eq!(world.store.find_convergeable(10).await.expect("read"), [task.id]);
    // Two nodes at the same time, and a sweep after them.
    let ids = [task.id];
    let (a, b) = tokio::join!(world.store.converge_tasks(&ids), world.store.converge_tasks(&ids));
    let ready = a.expect("converged").ready.len() + b.expect("converged").ready.len();
    assert_eq!(ready, 0, "`left` also waits for `before`");
    world.store.converge_tasks(&ids).await.expect("converged");
    assert_eq!(counts(&world).await, (1, 2), "`right` has left the count, `route` is settled");
    assert_eq!(world.count("select count(*) from tasker.steps where name = 'left'").await, 1);
    assert_eq!(world.count("select count(*) from tasker.steps where name = 'right'").await, 0);

    let applied = world.succeed(task.step_ids[0], StepKind::Standard).await;
    let [left] = &applied.ready[..] else { panic!("one child, not {applied:?}") };
    assert_eq!(left.name, "left");
    world.succeed(left.id, StepKind::Standard).await;
    let converged = world.store.converge_tasks(&ids).await.expect("converged");
    world.assert_as_read(&converged.ready).await;
    let [join] = converged.ready_ids()[..] else { panic!("one join, not {converged:?}") };
    let applied = world.succeed(join, StepKind::DeferredConvergence).await;
    assert_eq!(applied.finished_tasks[0].state, TaskState::Complete);
    assert_eq!(counts(&world).await, (0, 0));
}

/// The parent ends while the branch that waits for it is being created.
#[sqlx::test]
async fn a_parent_that_ends_meanwhile_is_not_waited_for(pool: PgPool) {
    let world = World::of(pool, TEMPLATE).await;
    for _ in 0..20 {
        let task = world.submit().await;
        decide(&world, &task, LEFT).await;
        let ids = [task.id];
        let before = [world.finished(task.step_ids[0], StepKind::Standard, 1)];
        let (converged, applied) =
            tokio::join!(world.store.converge_tasks(&ids), world.apply(&before));
        let ready = converged.expect("converged").ready.len() + applied.ready.len();
        assert_eq!(ready, 1, "`left` is made ready by exactly one of them");
        world.succeed(step(&world, &task, "left").await, StepKind::Standard).await;
    }
}

#[sqlx::test]
async fn a_task_ends_when_nothing_is_chosen(pool: PgPool) {
    let world = World::of(pool, TEMPLATE).await;
    let task = world.submit().await;
    decide(&world, &task, NONE).await;
    world.store.converge_tasks(&[task.id]).await.expect("converged");
    assert_eq!(counts(&world).await, (1, 0));
    let applied = world.succeed(task.step_ids[0], StepKind::Standard).await;
    assert_eq!(applied.finished_tasks[0].state, TaskState::Complete);
}

#[sqlx::test]
async fn a_failed_decision_blocks_its_task(pool: PgPool) {
    let world = World::of(pool, TEMPLATE).await;
    let task = world.submit().await;
    world.succeed(task.step_ids[0], StepKind::Standard).await;
    let mut attempt = world.finished(task.step_ids[1], StepKind::Decision, 1);
    attempt.ending = Err(failure(false));
    world.apply(&[attempt]).await;
    let converged = world.store.converge_tasks(&[task.id]).await.expect("converged");
    assert_eq!(converged.finished_tasks[0].state, TaskState::BlockedByFailures);
    assert_eq!(counts(&world).await, (0, 3));
}

/// Steps stand in the document before those that they wait for.
const BACKWARDS: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: last, dependencies: [middle], handler: {callable: t}}
  - {name: route, type: decision, handler: {callable: t}}
  - {name: middle, dependencies: [left], handler: {callable: t}}
  - {name: left, dependencies: [route], handler: {callable: t}}
";

#[sqlx::test]
async fn branches_wait_for_parents_further_down_the_document(pool: PgPool) {
    let world = World::of(pool, BACKWARDS).await;
    let task = world.submit().await;
    let mut attempt = world.finished(task.step_ids[0], StepKind::Decision, 1);
    attempt.ending = Ok(LEFT.into());
    world.apply(&[attempt]).await;
    let converged = world.store.converge_tasks(&[task.id]).await.expect("converged");
    world.assert_as_read(&converged.ready).await;
    let [left] = converged.ready_ids()[..] else { panic!("one branch, not {converged:?}") };
    let applied = world.succeed(left, StepKind::Standard).await;
    let [middle] = &applied.ready[..] else { panic!("one child, not {applied:?}") };
    let applied = world.succeed(middle.id, StepKind::Standard).await;
    let [last] = &applied.ready[..] else { panic!("one child, not {applied:?}") };
    let applied = world.succeed(last.id, StepKind::Standard).await;
    assert_eq!(applied.finished_tasks[0].state, TaskState::Complete);
}
