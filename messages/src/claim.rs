//! Claims: whether a step that was delivered before may run.

use serde::{Deserialize, Serialize};

use crate::{StepId, WorkerId};

/// Claims of one worker in one namespace, on `tasker.step.claim.<namespace>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClaimRequest {
    /// The worker that would run them.
    pub worker: WorkerId,
    /// The steps.
    pub claims: Vec<Claim>,
    /// Until when the worker waits for the answer, in milliseconds since 1970 by the server's clock. What
    /// were granted later would be granted to nobody: the worker has asked again meanwhile, and may
    /// have been told that another one holds the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

/// One claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The step.
    pub step_id: StepId,
    /// The `dispatch_seq` of the message in hand.
    pub dispatch_seq: u32,
    /// Whether the same message was delivered before, so that a worker vanished with it. That
    /// charges the retry budget; a message that was lost or sent again by a sweep does not.
    pub redelivered: bool,
    /// The attempt that this worker has begun and will not end, if there is one: should it still be the
    /// worker's own, another one follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<u32>,
}

/// The answer to a [`ClaimRequest`], one verdict per claim in the same order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClaimReply {
    /// One per claim.
    pub verdicts: Vec<ClaimVerdict>,
}

/// What to do with a claimed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimVerdict {
    /// Run it as this attempt.
    Run {
        /// The new fence.
        attempt: u32,
        /// How much of the retry budget is used up.
        tries: u32,
    },
    /// Another worker holds it: forget the message without acknowledging.
    Held,
    /// Nothing to do: acknowledge.
    Drop(DropReason),
}

/// Why a claimed step is not to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// It has an outcome.
    Ended,
    /// A later message exists.
    Superseded,
    /// Its retry budget was used up by workers that vanished; it has just been ended.
    Poisoned,
    /// It does not exist in this namespace or is not runnable.
    Unknown,
}

/// Steps that a worker gives back because it stops, on `tasker.step.release.<namespace>`: they are
/// dispatched again at once, without a charge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// The worker.
    pub worker: WorkerId,
    /// The steps.
    pub steps: Vec<ReleasedStep>,
}

/// One step that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasedStep {
    /// The step.
    pub step_id: StepId,
    /// The attempt that will not be finished.
    pub attempt: u32,
    /// The message that brought it.
    pub dispatch_seq: u32,
    /// Whether nobody has begun this attempt, nor ever will: then another worker may have it.
    #[serde(default)]
    pub unstarted: bool,
}

/// The answer to a [`ReleaseRequest`]; afterwards the messages of what was released are acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseReply {
    /// How many of the steps were still with the worker, and are not any more.
    pub released: u32,
    /// Which of them.
    #[serde(default)]
    pub steps: Vec<StepId>,
}
