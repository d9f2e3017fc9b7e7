//! States of tasks.

use sqlx::PgPool;
use tasker_messages::StepKind;

use super::assert_documented;
use crate::tests::{World, failure};
use crate::{Cancelled, FinishedAttempt, NewTask, RepairRequest, RepairTarget, SubmitVerdict};

const TEMPLATE: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: one, handler: {callable: t}}
  - {name: two, handler: {callable: t}}
  - {name: behind, dependencies: [two], handler: {callable: t}}
";

#[derive(Debug, Clone, Copy)]
enum Operation {
    Cancel,
    Retry,
    SubmitAgain,
    SubmitAnother,
}

const OPERATIONS: [Operation; 4] =
    [Operation::Cancel, Operation::Retry, Operation::SubmitAgain, Operation::SubmitAnother];

/// A state with what had happened before, and what each operation answers or makes of the task. One key
/// stands for one task, whatever has become of it.
const TABLE: [(&str, [&str; 4]); 9] = {
    const CANCELLED: &str = "→ `cancelled`";
    const AGAIN: &str = "→ `in_progress`";
    const NOTHING: &str = "`NOTHING_TO_RETRY`";
    const ENDED: &str = "`TASK_ENDED`";
    const FOUND: &str = "found";
    const CONFLICT: &str = "`IDEMPOTENCY_CONFLICT`";
    [
        ("pending", [CANCELLED, NOTHING, FOUND, CONFLICT]),
        ("in_progress", [CANCELLED, NOTHING, FOUND, CONFLICT]),
        ("in_progress, a step failed", [CANCELLED, AGAIN, FOUND, CONFLICT]),
        ("complete", [ENDED, NOTHING, FOUND, CONFLICT]),
        ("error", [ENDED, AGAIN, FOUND, CONFLICT]),
        ("blocked_by_failures", [ENDED, AGAIN, FOUND, CONFLICT]),
        ("cancelled", [ENDED, ENDED, FOUND, CONFLICT]),
        ("cancelled, a step failed", [ENDED, ENDED, FOUND, CONFLICT]),
        ("resolved_manually", [ENDED, ENDED, FOUND, CONFLICT]),
    ]
};

impl World {
    /// Empty, or why not.
    pub(super) async fn stop(&self, task: &NewTask) -> String {
        match self.store.cancel_task(task.id, "test", None).await.expect("decided") {
            Cancelled::Now { .. } => String::new(),
            Cancelled::Ended(_) => "TASK_ENDED".to_owned(),
            Cancelled::Unknown => panic!("it is there"),
        }
    }

    /// A task in this state, under a key of its own.
    async fn bring(&self, state: &str) -> NewTask {
        let task = self.new_task(Some(state), 1);
        let verdicts = self.store.insert_tasks(std::slice::from_ref(&task)).await.expect("stored");
        assert_eq!(verdicts, [SubmitVerdict::Created]);
        let well = |name| self.finished(self.id(&task, name), StepKind::Standard, 1);
        let badly = |name| FinishedAttempt { ending: Err(failure(false)), ..well(name) };
        let reports = match state {
            "pending" | "cancelled" => vec![],
            "in_progress" => vec![well("one")],
            "in_progress, a step failed" | "cancelled, a step failed" => vec![badly("one")],
            "complete" => vec![well("one"), well("two"), well("behind")],
            "error" => vec![badly("one"), well("two"), well("behind")],
            "blocked_by_failures" | "resolved_manually" => vec![well("one"), badly("two")],
            other => panic!("{other}"),
        };
        for report in reports {
            self.apply(&[report]).await;
        }
        if state.starts_with("cancelled") {
            assert_eq!(self.stop(&task).await, "");
        }
        if state == "resolved_manually" {
            // Nothing leads here yet; what is stored so is refused all the same.
            sqlx::query("update tasker.tasks set state = 'resolved_manually' where id = $1")
                .bind(task.id.as_uuid())
                .execute(&self.pool)
                .await
                .expect("set");
        }
        task
    }

    async fn handle(&self, task: &NewTask, operation: Operation) -> String {
        match operation {
            Operation::Cancel => self.stop(task).await,
            Operation::Retry => {
                let request = RepairRequest {
                    task: task.id,
                    target: RepairTarget::Task,
                    cascade: false,
                    principal: "test".into(),
                    reason: "test".into(),
                };
                let answer = self.store.repair(&request).await.expect("decided");
                answer.err().map(|refusal| refusal.code).unwrap_or_default()
            }
            Operation::SubmitAgain | Operation::SubmitAnother => {
                let hash = if matches!(operation, Operation::SubmitAgain) { 1 } else { 2 };
                let again = self.new_task(task.request.idempotency_key.as_deref(), hash);
                let verdicts = self.store.insert_tasks(&[again]).await.expect("decided");
                match verdicts[0] {
                    SubmitVerdict::Existing(id) if id == task.id => "found".to_owned(),
                    SubmitVerdict::Conflict(id) if id == task.id => {
                        "IDEMPOTENCY_CONFLICT".to_owned()
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[sqlx::test]
async fn every_state_and_operation(pool: PgPool) {
    let world = World::of(pool, TEMPLATE).await;
    let mut wrong = Vec::new();
    for (state, cells) in TABLE {
        for (operation, expect) in OPERATIONS.into_iter().zip(cells) {
            let task = world.bring(state).await;
            let before = world.snapshot(task.id).await;
            let is = state.split(',').next().unwrap_or_default();
            assert_eq!(before.task_state, is, "it is as it was to be made");
            let answer = world.handle(&task, operation).await;
            let after = world.snapshot(task.id).await;
            let got = match answer.as_str() {
                "" => format!("→ `{}`", after.task_state),
                "found" => answer,
                code => format!("`{code}`"),
            };
            let refused = !got.starts_with('→');
            assert!(!refused || after == before, "{state}, {operation:?}: something changed");
            if got != expect {
                wrong.push(format!("{state}, {operation:?}: {got}, and not {expect}"));
            }
            // Free the key for the next column.
            sqlx::query("update tasker.tasks set idempotency_key = null")
                .execute(&world.pool)
                .await
                .expect("freed");
        }
        assert_documented(state, &cells.map(str::to_owned));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(world.count("select count(*) from tasker.tasks").await, 4 * TABLE.len() as i64);
}
