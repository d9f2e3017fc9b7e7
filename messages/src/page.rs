//! Requests of a running step: shared part, large results, members' results, cursor pages.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{BatchId, CursorConfig, StepFailure, StepId, StepState, TaskId};

/// Read the shared part of a step, on `tasker.step.shared.<namespace>`. Answered with a
/// [`crate::SharedStep`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetShared {
    /// The task.
    pub task_id: TaskId,
    /// The step of the template.
    pub template_step: String,
}

/// Read the result of one ended step by name, on `tasker.step.result.<namespace>`. Answered with a
/// [`StoredResult`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetResult {
    /// The task.
    pub task_id: TaskId,
    /// The step's name.
    pub name: String,
}

/// One stored result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredResult {
    /// The handler's result; `None` if the step has not succeeded.
    pub result: Option<Box<RawValue>>,
}

/// Read outcomes of a batch's members in ordinal order, on `tasker.step.members.<namespace>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetMembers {
    /// The batch.
    pub batch_id: BatchId,
    /// The first ordinal wanted.
    pub from: u32,
    /// At most so many members; the server has a limit of its own.
    pub limit: u32,
}

/// A page of members in ordinal order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MembersPage {
    /// The members.
    pub members: Vec<MemberResult>,
    /// The first ordinal of the next page; `None` at the end.
    pub next: Option<u32>,
}

/// One member's outcome.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MemberResult {
    /// The member's ordinal in its batch.
    #[serde(rename = "n")]
    pub ordinal: u32,
    /// The member's name.
    #[serde(rename = "name")]
    pub name: String,
    /// How it ended.
    #[serde(rename = "state")]
    pub state: StepState,
    /// The handler's result, if it succeeded.
    #[serde(rename = "result", default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Why it failed, if it failed.
    #[serde(rename = "error", default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepFailure>,
}

/// Append a page of cursors while an analyzer runs, on `tasker.step.cursors.<namespace>`.
///
/// Pages are numbered from 0 without gaps, fenced by the attempt and idempotent: the same page
/// again changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppendCursors {
    /// The analyzer's step.
    pub step_id: StepId,
    /// The analyzer's attempt.
    pub attempt: u32,
    /// The number of the page.
    pub page: u32,
    /// The ranges, in order.
    pub cursors: Vec<CursorConfig>,
}

/// The answer to [`AppendCursors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorsAppended {
    /// Whether the attempt is still the current one; if not, the analyzer should stop.
    pub current: bool,
}
