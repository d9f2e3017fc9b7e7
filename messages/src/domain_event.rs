use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{EventName, Namespace, StepFailure, StepId, StepState, TaskId};

/// A domain event, on `tasker.event.<namespace>.domain.<name>`: what became of one attempt of a step
/// whose template publishes it. It is made of what is stored, so that a second one of the same id says
/// the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DomainEvent {
    /// The same for each publish of this event; the header `Nats-Msg-Id` as well.
    pub event_id: String,
    /// Its name.
    pub event: EventName,
    /// The namespace of the task.
    pub namespace: Namespace,
    /// The task.
    pub task_id: TaskId,
    /// As the task was submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// As the task was submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_correlation_id: Option<String>,
    /// The step.
    pub step_id: StepId,
    /// Its name; a member's is `<template>_<batch_id>`.
    pub step: String,
    /// The attempt that ended so.
    pub attempt: u32,
    /// What the step became by it: `complete`, `error` or `waiting_for_retry`.
    pub state: StepState,
    /// When that was stored, RFC 3339.
    pub ended_at: String,
    /// The result of a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// The error of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepFailure>,
    /// What is missing here, because the event would be too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}

impl DomainEvent {
    /// The largest result, or error, that travels along, as JSON text.
    pub const MAX_CONTENT_BYTES: usize = 256 * 1024;
}

/// A part of an event that is too large to travel along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// `result` or `error.context`.
    pub field: String,
    /// The size of the result, or of the whole error, as JSON text.
    pub bytes: u64,
}
