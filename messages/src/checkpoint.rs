//! Checkpoints: how far a step has come, so that its next attempt goes on from there.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::{Limits, inspect};
use crate::{Problem, StepId, code};

/// How far a step has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Where to go on: whatever the handler makes of it.
    pub cursor: Value,
    /// How many items are behind it. Rises with every checkpoint of a step.
    pub items_processed: u64,
    /// What the items have come to so far.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub accumulated_results: Value,
    /// When it was stored, RFC 3339; set by the orchestrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
}

/// Store a checkpoint of a running step, on `tasker.step.checkpoint.<namespace>`. Answered after
/// COMMIT with a [`CheckpointVerdict`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaveCheckpoint {
    /// The step.
    pub step_id: StepId,
    /// The attempt that runs. Only the current attempt can store a checkpoint.
    pub attempt: u32,
    /// How far it is.
    pub checkpoint: Checkpoint,
}

impl SaveCheckpoint {
    /// What a checkpoint may have beside the largest result: its keys and numbers, in bytes.
    const OVERHEAD: usize = 1_024;

    /// Checks whether it can be stored.
    ///
    /// # Errors
    /// `CHECKPOINT_NOT_STORABLE`, or a number that no row can have.
    pub fn check(&self, max_result_bytes: usize) -> Result<(), Problem> {
        let refuse = |why: String| {
            let message = format!("the checkpoint cannot be stored: {why}");
            Problem::new(code::CHECKPOINT_NOT_STORABLE, message).at("checkpoint")
        };
        let text = serde_json::to_string(&self.checkpoint).map_err(|e| refuse(e.to_string()))?;
        inspect(&text, Limits::bytes(max_result_bytes.saturating_add(Self::OVERHEAD)))
            .map_err(|problem| refuse(problem.message))?;
        let items = self.checkpoint.items_processed;
        let invalid = |most: i64, got: u64| {
            Problem::new(code::INVALID_VALUE, format!("must be 0 to {most}, not {got}"))
        };
        if self.attempt > i32::MAX as u32 {
            return Err(invalid(i32::MAX.into(), self.attempt.into()).at("attempt"));
        }
        if i64::try_from(items).is_err() {
            return Err(invalid(i64::MAX, items).at("checkpoint.items_processed"));
        }
        Ok(())
    }
}

/// What became of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointVerdict {
    /// It is stored. The same checkpoint again is answered like this, too.
    Saved,
    /// Another attempt is current, or the step has ended: the handler should stop.
    Superseded,
    /// One with as many items or more is stored already.
    NotAhead,
}

/// Read the last checkpoint of a step, on `tasker.step.resume.<namespace>`. Answered with a
/// [`StoredCheckpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetCheckpoint {
    /// The step.
    pub step_id: StepId,
}

/// The last checkpoint of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredCheckpoint {
    /// `None` if there is none.
    pub checkpoint: Option<Checkpoint>,
}
