//! Batches and static parents into aggregators: DESIGN section 4, rules 3 and 4.

use sqlx::PgPool;
use tasker_messages::StepKind;

use super::{Gate, ORDERS, failed, told};
use crate::NewTask;
use crate::tests::World;

/// Two batches into one aggregator; `note` makes sealing `t` count steps of the task.
const TWO: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: s, type: batchable, handler: {callable: t}}
  - {name: w, type: batch_worker, dependencies: [s], handler: {callable: t}}
  - {name: t, type: batchable, handler: {callable: t}}
  - {name: v, type: batch_worker, dependencies: [t], handler: {callable: t}}
  - {name: note, dependencies: [t], handler: {callable: t}}
  - {name: j, type: deferred_convergence, dependencies: [w, v], handler: {callable: t}}
";

/// Two aggregators over one batch, one of them over a static step as well.
const MIXED: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: a, handler: {callable: t}}
  - {name: s, type: batchable, handler: {callable: t}}
  - {name: w, type: batch_worker, dependencies: [s], handler: {callable: t}}
  - {name: j, type: deferred_convergence, dependencies: [w, a], handler: {callable: t}}
  - {name: k, type: deferred_convergence, dependencies: [w], handler: {callable: t}}
";

/// Rule 4: the aggregator's other batch is sealed while the first one converges. A batch that is not
/// sealed yet is undecided; taken for one that does not exist, the aggregator would run on half of its
/// input.
#[sqlx::test]
async fn the_second_batch_is_sealed_while_the_first_converges(pool: PgPool) {
    let world = World::of(pool, TWO).await;
    for seal_first in [true, false] {
        let task = world.submit().await;
        let w = world.sealed(&task, "s", 1).await;
        world.done(&task, &["t"]).await;
        let v = world.split(&task, "t", 1).await;
        world.apply(&[world.member(w, 0)]).await;
        let gate = Gate::Task(task.id);
        let (sealed, converged) = if seal_first {
            world.in_order(gate, world.seal(&v), world.converge(&task)).await
        } else {
            let (c, s) = world.in_order(gate, world.converge(&task), world.seal(&v)).await;
            (s, c)
        };
        assert_eq!(told(world.id(&task, "note"), &[&sealed, &converged]), 1);
        assert_eq!(converged.ready_ids(), [], "`v` has not ended");
        let between = "in_progress 2/1/0 | note=enqueued s=complete t=complete v_001=enqueued \
                       w_001=complete | v sealed 1/0/0, w converged 0/1/0";
        assert_eq!(world.shown(task.id).await, between, "sealed first: {seal_first}");
        world.apply(&[world.member(v.id, 0)]).await;
        let converged = world.converge(&task).await;
        assert_eq!(converged.ready_ids(), [world.found(&task, "j").await]);
    }
}

/// Rule 3: the last member of one batch ends while another batch of the same aggregator is sealed.
/// The two share no row, so nothing orders them: whatever the order, the aggregator waits.
#[sqlx::test]
async fn a_last_outcome_and_a_seal_share_an_aggregator(pool: PgPool) {
    let world = World::of(pool, TWO).await;
    for _ in 0..10 {
        let task = world.submit().await;
        let w = world.sealed(&task, "s", 1).await;
        world.done(&task, &["t"]).await;
        let v = world.split(&task, "t", 1).await;
        let last = [world.member(w, 0)];
        let (one, other) = tokio::join!(
            async { (world.apply(&last).await, world.converge(&task).await) },
            async { (world.seal(&v).await, world.converge(&task).await) }
        );
        assert_eq!(told(world.id(&task, "note"), &[&one.0, &one.1, &other.0, &other.1]), 1);
        assert_eq!((one.1.ready.len(), other.1.ready.len()), (0, 0));
        world.apply(&[world.member(v.id, 0)]).await;
        assert_eq!(world.converge(&task).await.ready_ids(), [world.found(&task, "j").await]);
    }
}

/// Rule 4, the second statement: the last member of the second batch ends while the first converges.
/// Numbers that were read before the lock was had would say that it runs, and nobody would ask again.
#[sqlx::test]
async fn the_last_member_ends_while_its_task_converges(pool: PgPool) {
    let world = World::of(pool, TWO).await;
    for outcome_first in [true, false] {
        let task = world.submit().await;
        let (w, v) = (world.sealed(&task, "s", 1).await, world.sealed(&task, "t", 1).await);
        world.apply(&[world.member(w, 0)]).await;
        let last = [world.member(v, 0)];
        let (outcome, converged, again) = if outcome_first {
            let (o, c) =
                world.in_order(Gate::Batch(v), world.apply(&last), world.converge(&task)).await;
            assert_eq!(c.ready_ids(), [world.found(&task, "j").await], "it saw the last outcome");
            (o, c, world.converge(&task).await)
        } else {
            let gate = Gate::Task(task.id);
            let (c, o) = world.in_order(gate, world.converge(&task), world.apply(&last)).await;
            assert_eq!(c.ready_ids(), [], "`v` had not ended");
            (o, c, world.converge(&task).await)
        };
        assert_eq!(outcome.emptied, [(v, task.id)], "who tells convergence");
        assert_eq!(told(world.found(&task, "j").await, &[&outcome, &converged, &again]), 1);
        let end = "in_progress 2/0/0 | j=enqueued note=enqueued s=complete t=complete \
                   v_001=complete w_001=complete | v converged 0/1/0, w converged 0/1/0";
        assert_eq!(world.shown(task.id).await, end, "outcome first: {outcome_first}");
    }
}

/// Rule 3: two last members of two batches, each followed by its own converging. The lost wake-up: each
/// of the two sees the other batch unfinished.
#[sqlx::test]
async fn two_batches_end_at_the_same_time(pool: PgPool) {
    let world = World::of(pool, TWO).await;
    for _ in 0..20 {
        let task = world.submit().await;
        let (w, v) = (world.sealed(&task, "s", 1).await, world.sealed(&task, "t", 1).await);
        let (one, other) = ([world.member(w, 0)], [world.member(v, 0)]);
        let ends = async |set| (world.apply(set).await, world.converge(&task).await);
        let (one, other) = tokio::join!(ends(&one), ends(&other));
        let join = world.found(&task, "j").await;
        assert_eq!(told(join, &[&one.0, &one.1, &other.0, &other.1]), 1);
        assert_eq!(one.1.settled_batches + other.1.settled_batches, 2);
    }
}

/// Rule 4: two nodes converge the same task. The second must see what the first has created, or the
/// aggregator is announced twice.
#[sqlx::test]
async fn two_nodes_converge_one_task(pool: PgPool) {
    let world = World::new(pool).await;
    let (task, batch) = world.expand(2).await;
    world.apply(&world.members(batch, 2)).await;
    let gate = Gate::Task(task.id);
    let (one, other) = world.in_order(gate, world.converge(&task), world.converge(&task)).await;
    assert_eq!(told(world.found(&task, "join").await, &[&one, &other]), 1);
    assert_eq!((one.settled_batches, other.settled_batches), (1, 0));
    let end = "in_progress 1/1/0 | after=pending analyze=complete before=complete join=enqueued \
               work_001=complete work_002=complete | work converged 0/2/0";
    assert_eq!(world.shown(task.id).await, end);
}

/// A task of [`MIXED`] with a batch of one.
async fn mixed(world: &World) -> (NewTask, tasker_messages::BatchId) {
    let task = world.submit().await;
    let batch = world.sealed(&task, "s", 1).await;
    (task, batch)
}

/// The convergence rule over a static parent and a batch, and two aggregators over one batch: each is
/// announced once, by whoever comes last, and `k` does not wait for what only `j` declares.
#[sqlx::test]
async fn a_static_parent_ends_while_its_batch_converges(pool: PgPool) {
    let world = World::of(pool, MIXED).await;
    for (outcome_first, in_sets) in ORDERS {
        world.store_in_sets(in_sets);
        let (task, batch) = mixed(&world).await;
        world.apply(&[world.member(batch, 0)]).await;
        let last = [world.attempt(&task, "a").await];
        let gate = Gate::Task(task.id);
        let (outcome, converged) = if outcome_first {
            world.in_order(gate, world.apply(&last), world.converge(&task)).await
        } else {
            let (c, o) = world.in_order(gate, world.converge(&task), world.apply(&last)).await;
            (o, c)
        };
        let at_once = if outcome_first { 2 } else { 1 };
        assert_eq!(converged.ready.len(), at_once, "outcome first: {outcome_first}");
        let again = world.converge(&task).await;
        for join in ["j", "k"] {
            let join = world.found(&task, join).await;
            assert_eq!(told(join, &[&outcome, &converged, &again]), 1);
        }
        let end = "in_progress 2/0/0 | a=complete j=enqueued k=enqueued s=complete \
                   w_001=complete | w converged 0/1/0";
        assert_eq!(world.shown(task.id).await, end, "outcome first: {outcome_first}");
    }
}

/// The same with the batch's last member, while the static parent's end is settled.
#[sqlx::test]
async fn a_batch_ends_while_its_static_neighbour_is_settled(pool: PgPool) {
    let world = World::of(pool, MIXED).await;
    for outcome_first in [true, false] {
        let (task, batch) = mixed(&world).await;
        world.done(&task, &["a"]).await;
        let last = [world.member(batch, 0)];
        let (outcome, converged) = if outcome_first {
            world.in_order(Gate::Batch(batch), world.apply(&last), world.converge(&task)).await
        } else {
            let gate = Gate::Task(task.id);
            let (c, o) = world.in_order(gate, world.converge(&task), world.apply(&last)).await;
            (o, c)
        };
        assert_eq!(converged.ready.len(), if outcome_first { 2 } else { 0 });
        let again = world.converge(&task).await;
        for join in ["j", "k"] {
            let join = world.found(&task, join).await;
            assert_eq!(told(join, &[&outcome, &converged, &again]), 1);
        }
    }
}

/// How many of three members fail, whichever of outcome and converging comes first. No join passes on
/// an empty set: where all failed, the aggregator never runs, and the task ends once.
#[sqlx::test]
async fn the_aggregator_runs_unless_every_member_failed(pool: PgPool) {
    let world = World::of(pool, MIXED).await;
    for (failing, outcome_first) in (0..=3).flat_map(|n| [(n, true), (n, false)]) {
        let task = world.submit().await;
        let batch = world.sealed(&task, "s", 3).await;
        world.done(&task, &["a"]).await;
        let end = |n: u32| match n < failing {
            true => failed(world.member(batch, n)),
            false => world.member(batch, n),
        };
        world.apply(&[end(2), end(1)]).await;
        let last = [end(0)];
        let (outcome, converged) = if outcome_first {
            world.in_order(Gate::Batch(batch), world.apply(&last), world.converge(&task)).await
        } else {
            let gate = Gate::Task(task.id);
            let (c, o) = world.in_order(gate, world.converge(&task), world.apply(&last)).await;
            (o, c)
        };
        let again = world.converge(&task).await;
        let ready = outcome.ready.len() + converged.ready.len() + again.ready.len();
        let ends = converged.finished_tasks.len() + again.finished_tasks.len();
        let shown = world.shown(task.id).await;
        if failing == 3 {
            assert_eq!((ready, ends), (0, 1), "all failed");
            assert!(shown.starts_with("blocked_by_failures 0/2/1 "), "{shown}");
            assert!(shown.ends_with("w failed 0/0/3"), "{shown}");
        } else {
            assert_eq!((ready, ends), (2, 0), "{failing} failed");
            assert!(shown.starts_with("in_progress 2/0/0 "), "{shown}");
            assert!(shown.ends_with(&format!("converged 0/{}/{failing}", 3 - failing)), "{shown}");
        }
    }
}

/// Rule 5: a task of which nothing is left but an analyzer does not end while it expands, in whichever
/// order its outcome and the sealing of another expansion come.
#[sqlx::test]
async fn a_task_does_not_end_while_its_last_step_expands(pool: PgPool) {
    let world = World::new(pool).await;
    for in_sets in [false, true] {
        world.store_in_sets(in_sets);
        let task = world.submit().await;
        world.done(&task, &["before"]).await;
        let analyzed = [world.finished(task.step_ids[1], StepKind::Batchable, 1)];
        let gate = Gate::Task(task.id);
        let (outcome, converged) =
            world.in_order(gate, world.apply(&analyzed), world.converge(&task)).await;
        assert_eq!((outcome.finished_tasks.len(), converged.finished_tasks.len()), (0, 0));
        assert!(outcome.unsettled[0].expands);
        let expanding = "in_progress 1/2/0 | analyze=expanding before=complete";
        assert_eq!(world.shown(task.id).await, expanding);
    }
}
