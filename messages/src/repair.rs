//! What people ask for by hand.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{BatchId, Problem, StepId, TaskId, code};

/// What is to be done about a failed step: the body of `PATCH /v1/tasks/{id}/steps/{step}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairStep {
    /// What to do.
    pub action: StepAction,
    /// Why; kept in the audit trail.
    pub reason: String,
    /// Who asks; kept in the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The result, with `complete_manually` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Whether convergences that have run with the failure are taken back and run again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cascade: bool,
}

/// What can be done about a failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepAction {
    /// Run it again with a new retry budget, from its last checkpoint.
    ResetForRetry,
    /// Count it as done, without a result.
    ResolveManually,
    /// Give it a result.
    CompleteManually,
}

/// Why a batch or a task is to be retried: the body of `POST …/retry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Why; kept in the audit trail.
    pub reason: String,
    /// Who asks; kept in the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Whether convergences that have run with the failure are taken back and run again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cascade: bool,
}

/// Checks why something is done by hand, and who asks, as they go into the audit trail.
///
/// # Errors
/// Which of them cannot be kept.
pub fn check_reason(reason: &str, by: Option<&str>) -> Result<(), Problem> {
    for (field, text) in [("reason", Some(reason)), ("by", by)] {
        if text.is_some_and(|text| !is_prose(text)) {
            let message = format!("must be 1 to {MAX_PROSE_BYTES} bytes of text");
            return Err(Problem::new(code::INVALID_VALUE, message).at(field));
        }
    }
    Ok(())
}

/// Longest text that people write about what they do, in bytes.
pub(crate) const MAX_PROSE_BYTES: usize = 1_000;

pub(crate) fn is_prose(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= MAX_PROSE_BYTES
}

/// What a repair has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// The task, which runs again.
    pub id: TaskId,
    /// Steps that were repaired and are not members of batches.
    pub steps: Vec<StepId>,
    /// Batches with repaired members, and how many.
    pub batches: Vec<RepairedBatch>,
    /// How many steps, members of batches among them, were behind convergences that had run and were
    /// taken back: they come anew, under other ids.
    #[serde(default)]
    pub taken_back: u32,
}

/// A batch with repaired members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairedBatch {
    /// The batch.
    pub id: BatchId,
    /// How many members were repaired.
    pub members: u32,
}
