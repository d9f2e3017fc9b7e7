//! Outcomes that are stored alone, by a statement of their own, against each other and against those that are
//! stored in sets.

use sqlx::PgPool;
use tasker_messages::{StepKind, Verdict};

use super::{Gate, told};
use crate::Applied;
use crate::tests::World;

const DIAMOND: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: left, handler: {callable: t}}
  - {name: right, handler: {callable: t}}
  - {name: join, dependencies: [left, right], handler: {callable: t}}
";

/// Which of two is stored by the statement for sets.
const IN_SETS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

impl World {
    async fn end(&self, step: tasker_messages::StepId, in_a_set: bool) -> Applied {
        let set = [self.finished(step, StepKind::Standard, 1)];
        self.store_in_sets(in_a_set);
        self.apply(&set).await
    }
}

/// Both parents of a step end. The second has begun when the first counts what the step waits for.
#[sqlx::test]
async fn two_parents_end_together(pool: PgPool) {
    let world = World::of(pool, DIAMOND).await;
    for (one_in_a_set, other_in_a_set) in IN_SETS {
        let task = world.submit().await;
        let (left, right) = (world.id(&task, "left"), world.id(&task, "right"));
        let (first, second) = (world.end(left, one_in_a_set), world.end(right, other_in_a_set));
        let (first, second) = world.in_order(Gate::Task(task.id), first, second).await;
        assert_eq!((first.ready.len(), second.ready.len()), (0, 1), "the second one frees it");
        assert_eq!(told(world.id(&task, "join"), &[&first, &second]), 1);
        let end = "in_progress 1/0/0 | join=enqueued left=complete right=complete";
        assert_eq!(world.shown(task.id).await, end);
    }
}

/// The same outcome comes twice, and the second time before the first one is committed.
#[sqlx::test]
async fn one_step_ends_twice(pool: PgPool) {
    let world = World::of(pool, DIAMOND).await;
    for (one_in_a_set, other_in_a_set) in IN_SETS {
        let task = world.submit().await;
        world.end(world.id(&task, "right"), false).await;
        let left = world.id(&task, "left");
        let (first, second) = (world.end(left, one_in_a_set), world.end(left, other_in_a_set));
        let (first, second) = world.in_order(Gate::Task(task.id), first, second).await;
        assert_eq!(first.verdicts, [Verdict::Applied]);
        assert_eq!(second.verdicts, [Verdict::Duplicate]);
        assert_eq!((first.ready.len(), second.ready.len()), (1, 0));
        let end = "in_progress 1/0/0 | join=enqueued left=complete right=complete";
        assert_eq!(world.shown(task.id).await, end);
    }
}
