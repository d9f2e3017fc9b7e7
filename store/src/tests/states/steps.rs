//! States of steps.

use sqlx::PgPool;
use tasker_messages::{
    Claim, ClaimVerdict, DropReason, RunningStep, StepId, StepKind, Verdict, WorkerId,
};
use tasker_workflow::RepairAction;
use uuid::Uuid;

use super::assert_documented;
use crate::tests::{TERMS, World, failure, ns};
use crate::{FinishedAttempt, NewBatch, NewTask, RepairRequest, RepairTarget};

/// `subject` is what things are done to, unless only another step can be in the state. `beside` keeps
/// the task alive.
const TEMPLATE: &str = r"
name: numbers
namespace_name: tests
version: 1.0.0
steps:
  - {name: first, handler: {callable: t}}
  - name: subject
    dependencies: [first]
    handler: {callable: t}
    retry: {max_attempts: 2, backoff: none, backoff_base_ms: 0, jitter: false}
  - {name: child, dependencies: [subject], handler: {callable: t}}
  - {name: beside, handler: {callable: t}}
  - {name: split, type: batchable, dependencies: [first], handler: {callable: t}}
  - {name: part, type: batch_worker, dependencies: [split], handler: {callable: t}}
  - {name: joined, type: deferred_convergence, dependencies: [part], handler: {callable: t}}
";

/// What can be done to a step or happen to it, in the order of the table's columns.
const OPERATIONS: [Operation; 6] = [
    Operation::Repair(RepairAction::Reset),
    Operation::Repair(RepairAction::Resolve),
    Operation::Repair(RepairAction::Complete),
    Operation::Report,
    Operation::Claim,
    Operation::CancelTask,
];

#[derive(Debug, Clone, Copy)]
enum Operation {
    Repair(RepairAction),
    /// The first attempt of the step is reported, for the first time or again.
    Report,
    /// Its first message is delivered once more, to another worker.
    Claim,
    CancelTask,
}

/// A state, and what each operation answers and changes.
const TABLE: [(&str, [&str; 6]); 11] = {
    const NO: &str = "STEP_NOT_FAILED";
    const ENDED: &str = "TASK_ENDED";
    const CANCELLED: &str = "it=cancelled";
    const DONE: &str = "applied it=complete child=enqueued";
    [
        ("pending", [NO, NO, NO, "unknown", "unknown", CANCELLED]),
        ("enqueued", [NO, NO, NO, DONE, "run it=in_progress", CANCELLED]),
        ("in_progress", [NO, NO, NO, DONE, "held", CANCELLED]),
        ("waiting_for_retry", [NO, NO, NO, "stale", "superseded", CANCELLED]),
        ("expanding", [NO, NO, NO, "duplicate", "ended", "it=complete"]),
        ("complete", [NO, NO, NO, "duplicate", "ended", ""]),
        (
            "error",
            [
                "it=enqueued",
                "it=resolved_manually child=enqueued",
                "it=complete child=enqueued",
                "duplicate",
                "ended",
                "",
            ],
        ),
        ("cancelled", [ENDED, ENDED, ENDED, "duplicate", "ended", ENDED]),
        ("cancelled with its batch", [NO, NO, NO, "duplicate", "ended", ""]),
        ("resolved_manually", [NO, NO, NO, "duplicate", "ended", ""]),
        ("enqueued after a reset", [NO, NO, NO, "stale", "superseded", CANCELLED]),
    ]
};

/// As the reference has it: what the step becomes, or what is answered.
fn cell(text: &str) -> String {
    let becomes = text.split(' ').find_map(|word| word.strip_prefix("it="));
    match (becomes, text) {
        (Some(state), _) => format!("→ `{state}`"),
        (None, "") => "stays".to_owned(),
        (None, answer) => format!("`{answer}`"),
    }
}

impl World {
    /// A step of a new task in this state, which it got into as it would anywhere.
    async fn make(&self, state: &str) -> (NewTask, String, StepId) {
        let task = self.submit().await;
        let mut name = "subject";
        let subject = self.id(&task, name);
        if state != "pending" {
            self.succeed(self.id(&task, "first"), StepKind::Standard).await;
        }
        match state {
            "pending" | "enqueued" => {}
            "in_progress" => {
                let running = [RunningStep { step_id: subject, attempt: 1 }];
                let renewed = self.store.renew_leases(&ns(), self.worker, &running, 60_000).await;
                renewed.expect("renewed");
            }
            "waiting_for_retry" => self.fail(subject, StepKind::Standard, true).await,
            "complete" => drop(self.succeed(subject, StepKind::Standard).await),
            "error" | "resolved_manually" | "enqueued after a reset" => {
                self.fail(subject, StepKind::Standard, false).await;
                let action = match state {
                    "resolved_manually" => RepairAction::Resolve,
                    _ => RepairAction::Reset,
                };
                if state != "error" {
                    assert_eq!(self.mend(&task, subject, action).await, "");
                }
            }
            "cancelled" => drop(self.store.cancel_task(task.id, "test", None).await.expect("done")),
            "expanding" => {
                name = "split";
                self.succeed(self.id(&task, name), StepKind::Batchable).await;
            }
            "cancelled with its batch" => {
                name = "part_002";
                self.stop_batch(&task).await;
            }
            other => panic!("{other}"),
        }
        let id = self.store.find_step(task.id, name).await.expect("read").expect("there");
        (task, name.to_owned(), id)
    }

    async fn fail(&self, step: StepId, kind: StepKind, retryable: bool) {
        let ending = Err(failure(retryable));
        let attempt = FinishedAttempt { ending, ..self.finished(step, kind, 1) };
        assert_eq!(self.apply(&[attempt]).await.verdicts, [Verdict::Applied]);
    }

    /// A batch whose first member fails, which is one too many.
    async fn stop_batch(&self, task: &NewTask) {
        let split = self.id(task, "split");
        self.succeed(split, StepKind::Batchable).await;
        let mut batch = NewBatch {
            batchable_step: split,
            worker_template: "part".into(),
            max_failed: 0,
            ..self.new_batch(task, 3)
        };
        for (n, member) in (1..).zip(&mut batch.members) {
            member.name = format!("part_{n:03}");
        }
        self.store.seal_new_batches(std::slice::from_ref(&batch)).await.expect("sealed");
        self.fail(batch.id.member(0), StepKind::BatchWorker, false).await;
        while self.store.cancel_members(10).await.expect("swept") {}
        self.store.converge_tasks(&[task.id]).await.expect("settled");
    }

    /// Empty, or why not.
    async fn mend(&self, task: &NewTask, step: StepId, action: RepairAction) -> String {
        let result = (action == RepairAction::Complete).then(|| "{\"by\":\"hand\"}".into());
        let request = RepairRequest {
            task: task.id,
            target: RepairTarget::Step(step, action, result),
            cascade: false,
            principal: "test".into(),
            reason: "test".into(),
        };
        let answer = self.store.repair(&request).await.expect("decided");
        answer.err().map(|refusal| refusal.code).unwrap_or_default()
    }

    async fn operate(&self, task: &NewTask, step: StepId, operation: Operation) -> String {
        match operation {
            Operation::Repair(action) => self.mend(task, step, action).await,
            Operation::Report => {
                let kind: String =
                    sqlx::query_scalar("select kind::text from tasker.steps where id = $1")
                        .bind(step.as_uuid())
                        .fetch_one(&self.pool)
                        .await
                        .expect("read");
                let report = self.finished(step, kind.parse().expect("a kind"), 1);
                match self.apply(&[report]).await.verdicts[0] {
                    Verdict::Applied => "applied",
                    Verdict::Duplicate => "duplicate",
                    Verdict::Stale { superseded: true } => "stale",
                    Verdict::Unknown => "unknown",
                    other => panic!("{other:?}"),
                }
                .to_owned()
            }
            Operation::Claim => {
                let claim =
                    [Claim { step_id: step, dispatch_seq: 1, redelivered: true, begun: None }];
                let other = WorkerId::from_uuid(Uuid::now_v7());
                let granted = self.store.claim_steps(&ns(), other, &claim, &TERMS, None).await;
                match granted.expect("decided").verdicts[0] {
                    ClaimVerdict::Run { attempt: 2, tries: 1 } => "run",
                    ClaimVerdict::Held => "held",
                    ClaimVerdict::Drop(DropReason::Ended) => "ended",
                    ClaimVerdict::Drop(DropReason::Superseded) => "superseded",
                    ClaimVerdict::Drop(DropReason::Unknown) => "unknown",
                    other => panic!("{other:?}"),
                }
                .to_owned()
            }
            Operation::CancelTask => self.stop(task).await,
        }
    }
}

#[sqlx::test]
async fn every_state_and_operation(pool: PgPool) {
    let world = World::of(pool, TEMPLATE).await;
    world.lose_a_worker().await;
    let mut wrong = Vec::new();
    for (state, cells) in TABLE {
        for (operation, expect) in OPERATIONS.into_iter().zip(cells) {
            let (task, name, step) = world.make(state).await;
            let before = world.snapshot(task.id).await;
            let is = before.state(&name);
            assert_eq!(is, state.split(' ').next(), "it is as it was to be made");
            let answer = world.operate(&task, step, operation).await;
            let after = world.snapshot(task.id).await;
            let got = match operation {
                Operation::CancelTask if answer.is_empty() => {
                    let open = after.steps.iter().find(|(name, (state, _))| {
                        let stays = before.state(name) == Some(state) && state != "enqueued";
                        !stays && state != "cancelled" && before.state(name) != Some("expanding")
                    });
                    assert!(open.is_none(), "{state}: {open:?} was not cancelled");
                    let (was, is) = (before.state(&name), after.state(&name));
                    if was == is { String::new() } else { format!("it={}", is.unwrap_or_default()) }
                }
                _ => {
                    let changes = after.changes_since(&before, &name);
                    assert!(!changes.is_empty() || after == before, "{state}, {operation:?}");
                    let words = [answer, changes];
                    words.iter().filter(|w| !w.is_empty()).cloned().collect::<Vec<_>>().join(" ")
                }
            };
            if sorted(&got) != sorted(expect) {
                wrong.push(format!("{state}, {operation:?}: {got:?}, and not {expect:?}"));
            }
            world.shown(task.id).await;
        }
        assert_documented(state, &cells.map(cell));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn sorted(words: &str) -> Vec<&str> {
    let mut words: Vec<&str> = words.split(' ').collect();
    words.sort_unstable();
    words
}
