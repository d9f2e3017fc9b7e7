//! Reports of finished attempts, on `tasker.outcome.<namespace>`, and the verdicts on them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{Problem, StepId, StepKind, WorkItem, WorkerId, code};

/// Finished attempts of one worker in one namespace. Answered after COMMIT.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutcomeReport {
    /// The worker that ran them.
    pub worker: WorkerId,
    /// At most the limit that the worker's configuration names.
    pub outcomes: Vec<AttemptFinished>,
    /// How many steps the worker would run at once if the answer brought them.
    #[serde(default)]
    pub takes: u32,
    /// Whether the worker says of each outcome if its step has a schema. One of an older build does
    /// not, and all of its results are looked up.
    #[serde(default)]
    pub tells_schemas: bool,
    /// The same of its domain events.
    #[serde(default)]
    pub tells_events: bool,
}

impl OutcomeReport {
    /// Checks the numbers that rows have.
    ///
    /// # Errors
    /// The first that no row can have.
    pub fn check(&self) -> Result<(), Problem> {
        const MOST: u32 = i32::MAX as u32;
        for (n, finished) in self.outcomes.iter().enumerate() {
            for (key, number) in [("a", finished.attempt), ("d", finished.dispatch_seq)] {
                if number > MOST {
                    let message = format!("must be 0 to {MOST}, not {number}");
                    let problem = Problem::new(code::INVALID_VALUE, message);
                    return Err(problem.at(format!("outcomes[{n}].{key}")));
                }
            }
        }
        Ok(())
    }
}

/// One finished attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttemptFinished {
    /// The step.
    #[serde(rename = "s")]
    pub step_id: StepId,
    /// The attempt that ran. Only the current attempt of a step can end it.
    #[serde(rename = "a")]
    pub attempt: u32,
    /// The message that brought the attempt.
    #[serde(rename = "d")]
    pub dispatch_seq: u32,
    /// What the step is, as the worker was told: outcomes of batchable and decision steps are
    /// judged before they are stored. A report that names the wrong kind is not applied.
    #[serde(rename = "k")]
    pub kind: StepKind,
    /// Whether the step has a schema for its result, as the worker was told.
    #[serde(rename = "c", default, skip_serializing_if = "is_false")]
    pub has_schema: bool,
    /// Whether the step publishes domain events, as the worker was told, or may do so where the worker
    /// was told nothing.
    #[serde(rename = "e", default, skip_serializing_if = "is_false")]
    pub has_events: bool,
    /// How long the handler ran.
    #[serde(rename = "ms")]
    pub execution_ms: u32,
    /// How it ended.
    #[serde(rename = "o")]
    pub outcome: AttemptOutcome,
}

impl AttemptFinished {
    /// Whether a step may follow it in the answer: not a member, which the rest of its batch is waited
    /// for, nor what makes its children first.
    pub fn may_bring_next(&self) -> bool {
        matches!(self.kind, StepKind::Standard | StepKind::DeferredConvergence)
            && matches!(self.outcome, AttemptOutcome::Succeeded(_))
    }
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// How an attempt ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The handler's result.
    #[serde(rename = "ok")]
    Succeeded(Box<RawValue>),
    /// The handler's error.
    #[serde(rename = "err")]
    Failed(StepFailure),
}

/// Why an attempt failed, for people and for the retry rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepFailure {
    /// A stable code: one of [`crate::code`] or one of the handler's own.
    pub code: String,
    /// What went wrong and where.
    pub message: String,
    /// Whether another attempt may succeed.
    pub retryable: bool,
    /// The class of the error, e.g. `timeout`, `panic`, `permanent`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_type: String,
    /// Earliest time of the next attempt, from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Whatever else the handler wants to say.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub context: Value,
}

impl StepFailure {
    /// The `error_type` by which a worker says that it does not have the handler. No handler can use
    /// it.
    pub const UNSERVED: &str = "unserved";

    /// Whether the worker could not run the step, because it does not have its handler. Another worker
    /// of the queue may, so that this costs nothing of the retry budget.
    pub fn is_unserved(&self) -> bool {
        self.error_type == Self::UNSERVED
    }
}

/// The answer to an [`OutcomeReport`], one verdict per outcome in the same order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutcomeVerdicts {
    /// One per reported outcome.
    pub verdicts: Vec<Verdict>,
    /// Steps that the outcomes made ready and that this worker is to run, at most as many as it
    /// `takes`. They are leased to it and on no stream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<NextStep>,
}

/// A step that is handed to the worker that ended the last of its parents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NextStep {
    /// Which of the reported outcomes it follows: its queue is the same.
    pub after: u32,
    /// What to run.
    pub item: WorkItem,
}

/// What became of one reported outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Stored, or a retry was scheduled; the work message can be acknowledged.
    Applied,
    /// The step already has an outcome; the work message can be acknowledged.
    Duplicate,
    /// Another attempt is current. The message is acknowledged only if a later one exists.
    Stale {
        /// Whether the step has been dispatched again since the message.
        superseded: bool,
    },
    /// The step does not exist in this namespace, or the report contradicts its row.
    Unknown,
}

impl Verdict {
    /// Whether the work message that brought the attempt is to be acknowledged.
    pub const fn acknowledges(self) -> bool {
        match self {
            Verdict::Applied | Verdict::Duplicate | Verdict::Unknown => true,
            Verdict::Stale { superseded } => superseded,
        }
    }
}
