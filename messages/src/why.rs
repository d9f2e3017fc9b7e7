//! Why a task is where it is.

use serde::{Deserialize, Serialize};

use crate::state::names;
use crate::{StepFailure, TaskId, TaskState};

/// Why a task is where it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Why {
    /// The task.
    pub id: TaskId,
    /// Its state.
    pub state: TaskState,
    /// Why it did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepFailure>,
    /// One for each step of the template that has not ended well and may still exist, in the order of
    /// the template; a batch worker stands for its batch. None if all has ended well.
    pub reasons: Vec<Reason>,
}

/// Why one step or batch is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The step's name in the template.
    pub step: String,
    /// The state of the step or batch; `absent` while it has no row.
    pub state: String,
    /// The cause.
    pub code: ReasonCode,
    /// The cause with its particulars, for people.
    pub message: String,
    /// The steps that it waits for or is held up by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
}

/// The causes. Stable: programs may rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// Parents have not ended.
    WaitsForParents,
    /// What creates it has not ended: its analyzer, a decision, or the parents of a convergence.
    NotYetCreated,
    /// It can go on only if something in front of it that has failed is repaired.
    BlockedByFailures,
    /// Its batch was stopped, because more members failed than it tolerates.
    BatchStopped,
    /// It is ready and waits for a free slot, or for room in the window of its queue.
    Queued,
    /// It is ready, and all slots of the workers that could run it were busy at their last heartbeat.
    AllSlotsBusy,
    /// It is ready, and no live worker pulls its queue.
    NoWorker,
    /// It is ready, and no live worker of its queue has its callable.
    NoHandler,
    /// A worker runs it.
    Running,
    /// The worker that ran it is silent; another one takes over.
    LeaseExpired,
    /// An attempt failed; the next one has a time.
    WaitsForRetry,
    /// The members of its batch are being written.
    Expanding,
    /// Members have not ended.
    MembersRemain,
    /// What it waited for has happened; the next transaction acts on it.
    Settling,
    /// It failed for good.
    Failed,
    /// It was cancelled.
    Cancelled,
}

names!(ReasonCode, "reason",
    WaitsForParents => "waits_for_parents", NotYetCreated => "not_yet_created",
    BlockedByFailures => "blocked_by_failures", BatchStopped => "batch_stopped",
    Queued => "queued", AllSlotsBusy => "all_slots_busy", NoWorker => "no_worker",
    NoHandler => "no_handler", Running => "running", LeaseExpired => "lease_expired",
    WaitsForRetry => "waits_for_retry", Expanding => "expanding",
    MembersRemain => "members_remain", Settling => "settling", Failed => "failed",
    Cancelled => "cancelled");
