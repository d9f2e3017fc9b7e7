//! Steps of a chain that go from one worker's report straight back to it.

use sqlx::PgPool;
use tasker_messages::{RunningStep, StepId, StepKind, Verdict};

use super::{LEASE_MS, World, ns};
use crate::FinishedAttempt;

const CHAIN: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: first, handler: {callable: t.a}}
  - {name: second, dependencies: [first], handler: {callable: t.b}}
  - {name: beside, dependencies: [first], handler: {callable: t.b}}
  - {name: elsewhere, dependencies: [second], handler: {callable: t.c, queue: other}}
  - {name: last, dependencies: [beside, elsewhere], handler: {callable: t.d}}
";

impl World {
    fn taking(&self, step: StepId) -> FinishedAttempt {
        FinishedAttempt { takes_next: true, ..self.finished(step, StepKind::Standard, 1) }
    }

    /// Whether the sweep for unpublished steps would publish the step now.
    async fn is_swept(&self, step: StepId) -> bool {
        let unsent = self.store.find_unsent(0, 10).await.expect("read");
        let ready = self.store.load_ready(&unsent).await.expect("read");
        assert_eq!(unsent.contains(&step), ready.iter().any(|r| r.id == step));
        unsent.contains(&step)
    }

    async fn expire_leases(&self) {
        sqlx::query("update tasker.steps set lease_until = now() - interval '1 second'")
            .execute(&self.pool)
            .await
            .expect("expired");
    }
}

#[sqlx::test]
async fn one_child_of_the_same_queue_goes_to_the_worker(pool: PgPool) {
    let world = World::of(pool, CHAIN).await;
    for in_sets in [false, true] {
        world.store_in_sets(in_sets);
        one_child_is_handed(&world).await;
    }
}

async fn one_child_is_handed(world: &World) {
    let task = world.submit().await;
    let [first, second, beside, elsewhere, last] = task.step_ids[..] else { panic!("five steps") };

    let applied = world.apply(&[world.taking(first)]).await;
    let handed: Vec<_> = applied.handed.iter().map(|(giver, step)| (*giver, step.id)).collect();
    assert_eq!(handed, [(first, second)], "the first child");
    assert_eq!(applied.ready.iter().map(|s| s.id).collect::<Vec<_>>(), [beside]);
    assert_eq!(applied.results.len(), 1);
    assert_eq!(&*applied.results[&(task.id, "first".to_owned())], "{\"value\": 1}");

    let applied = world.apply(&[world.taking(second)]).await;
    assert!(applied.handed.is_empty(), "another queue, perhaps not the worker's");
    assert_eq!(applied.ready[0].id, elsewhere);
    let applied = world.apply(&[world.taking(beside)]).await;
    assert!(applied.handed.is_empty() && applied.ready.is_empty(), "`last` waits for two");
    let applied = world.apply(&[world.taking(elsewhere)]).await;
    assert_eq!((applied.handed.len(), applied.ready[0].id), (0, last));
    let applied = world.succeed(last, StepKind::Standard).await;
    assert_eq!(applied.finished_tasks.len(), 1);
}

#[sqlx::test]
async fn a_worker_that_takes_nothing_is_given_nothing(pool: PgPool) {
    let world = World::of(pool, CHAIN).await;
    for in_sets in [false, true] {
        world.store_in_sets(in_sets);
        let task = world.submit().await;
        let applied = world.succeed(task.step_ids[0], StepKind::Standard).await;
        assert_eq!((applied.handed.len(), applied.ready.len()), (0, 2));
    }
}

#[sqlx::test]
async fn a_handed_step_is_swept_when_its_lease_ends(pool: PgPool) {
    let world = World::of(pool, CHAIN).await;
    for in_sets in [false, true] {
        world.store_in_sets(in_sets);
        a_handed_step_is_lost(&world).await;
    }
}

async fn a_handed_step_is_lost(world: &World) {
    let task = world.submit().await;
    let second = task.step_ids[1];
    world.apply(&[world.taking(task.step_ids[0])]).await;
    assert!(!world.is_swept(second).await, "it is leased");
    world.expire_leases().await;
    assert!(world.is_swept(second).await, "the worker never got it");

    // It did and runs it: in progress under a new lease, until the worker dies.
    let running = [RunningStep { step_id: second, attempt: 1 }];
    let renewed = world.store.renew_leases(&ns(), world.worker, &running, LEASE_MS).await;
    renewed.expect("renewed");
    assert!(!world.is_swept(second).await);
    world.expire_leases().await;
    assert!(world.is_swept(second).await);

    // Ended after all: the sweep only tidies up.
    assert_eq!(world.apply(&[world.taking(second)]).await.verdicts, [Verdict::Applied]);
    assert!(!world.is_swept(second).await);
    let unsent = "select count(*) from tasker.steps
                  where id in (select step_id from tasker.outcomes) and sent_seq < dispatch_seq";
    let first = world.count(unsent).await;
    assert_eq!(first, 0, "recorded as sent");
}
