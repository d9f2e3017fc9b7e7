//! What the API and `tasker.task.get` show.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{
    BatchId, BatchState, EventName, Namespace, QueueLoad, StepFailure, StepId, StepKind, StepState,
    TaskId, TaskState, WorkerId,
};

/// A task with its steps. Members of batches with more than [`TaskView::MAX_LISTED_MEMBERS`]
/// members are left out of `steps` and paged by `/v1/tasks/{id}/steps`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskView {
    /// The task.
    pub id: TaskId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The template's name.
    pub name: String,
    /// The template's version.
    pub version: String,
    /// Its state.
    pub state: TaskState,
    /// Its priority.
    pub priority: i8,
    /// Why it did not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepFailure>,
    /// When it was accepted, RFC 3339.
    pub created_at: String,
    /// When it ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// What it was given.
    pub context: Box<RawValue>,
    /// Its steps, in the order of their creation.
    #[serde(default)]
    pub steps: Vec<StepView>,
    /// Its batches.
    #[serde(default)]
    pub batches: Vec<BatchView>,
}

impl TaskView {
    /// Members of larger batches are not listed with the task.
    pub const MAX_LISTED_MEMBERS: u32 = 1_000;
}

/// One step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepView {
    /// The step.
    pub id: StepId,
    /// Its name.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: StepKind,
    /// Its state.
    pub state: StepState,
    /// Its current attempt.
    pub attempt: u32,
    /// The batch it is a member of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<BatchId>,
    /// The member's range and what it shares with the others.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub inputs: Value,
    /// Its outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<StepResults>,
    /// How far it has come, by its last checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointView>,
}

/// One step with the attempts that did not end it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepHistory {
    /// The step.
    pub step: StepView,
    /// Its failed attempts, oldest first; at most [`StepHistory::MAX_ATTEMPTS`], the newest of them.
    pub attempts: Vec<FailedAttempt>,
    /// The domain events of its outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventView>,
}

impl StepHistory {
    /// Attempts that are listed.
    pub const MAX_ATTEMPTS: u32 = 100;
}

/// An attempt that did not end its step, or whose end was taken back by a repair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// Its number.
    pub attempt: u32,
    /// Why it failed.
    pub error: StepFailure,
    /// The worker; `None` if none was involved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    /// How long the handler ran.
    pub execution_time_ms: u32,
    /// When the failure was stored, RFC 3339.
    pub failed_at: String,
}

/// A domain event of a step's outcome, as it follows from what is stored. Whether it has been published is not
/// recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Its id.
    pub event_id: String,
    /// Its name.
    pub event: EventName,
    /// What does not fit its schema, if it is withheld.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
}

/// A checkpoint without what was accumulated there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckpointView {
    /// Where the step goes on.
    pub cursor: Box<RawValue>,
    /// How many items are behind it.
    pub items_processed: u64,
    /// When it was stored, RFC 3339.
    pub timestamp: String,
}

/// The outcome of a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepResults {
    /// Whether it succeeded.
    pub success: bool,
    /// The handler's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepFailure>,
    /// How it ran.
    pub metadata: ResultMetadata,
}

/// How a step's last attempt ran.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResultMetadata {
    /// How long the handler ran.
    pub execution_time_ms: u32,
    /// When the outcome was stored, RFC 3339.
    pub completed_at: String,
    /// The worker; `None` if no worker was involved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    /// The attempt that ended the step.
    pub attempt: u32,
}

/// One batch in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchView {
    /// The batch.
    pub id: BatchId,
    /// The analyzer's step name.
    pub batchable_step: String,
    /// The template step whose instances are the members.
    pub worker_template: String,
    /// Its state.
    pub state: BatchState,
    /// How many members there are.
    pub expected: u32,
    /// How many have been put on the bus.
    pub published: u32,
    /// How many succeeded.
    pub succeeded: u32,
    /// How many failed.
    pub failed: u32,
    /// How many have not ended.
    pub remaining: u32,
    /// Whether the only member is the placeholder of a batch without ranges.
    pub is_no_op: bool,
}

/// A task in a list or a progress display.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskSummary {
    /// The task.
    pub id: TaskId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The template's name.
    pub name: String,
    /// The template's version.
    pub version: String,
    /// Its state.
    pub state: TaskState,
    /// When it was accepted, RFC 3339.
    pub created_at: String,
    /// When it ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Its batches; only in `/v1/tasks/{id}/summary`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<BatchView>,
}

/// A page of tasks, newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskList {
    /// The tasks.
    pub tasks: Vec<TaskSummary>,
    /// Give this as `after` for the next page; `None` at the end.
    pub next: Option<TaskId>,
}

/// A page of steps: first those that are not members, then members by batch and ordinal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepPage {
    /// The steps.
    pub steps: Vec<StepView>,
    /// Give this as `after` for the next page; `None` at the end.
    pub next: Option<StepId>,
}

/// One version of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateSummary {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was registered, RFC 3339.
    pub created_at: String,
}

/// A page of templates.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TemplateList {
    /// The templates by namespace, name and version.
    pub templates: Vec<TemplateSummary>,
}

/// One version of a template with its source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TemplateView {
    /// What it is.
    #[serde(flatten)]
    pub summary: TemplateSummary,
    /// The YAML as it was registered.
    pub source: String,
}

/// One worker in one namespace, as its heartbeats describe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// The worker.
    pub id: WorkerId,
    /// The namespace.
    pub namespace: Namespace,
    /// Its name for people.
    pub name: String,
    /// Its build.
    pub build: String,
    /// What it pulls.
    pub queues: Vec<QueueLoad>,
    /// What it can run.
    pub callables: Vec<String>,
    /// Whether it has others, which resolvers find when they are asked for.
    #[serde(default)]
    pub resolves: bool,
    /// Whether it takes nothing more.
    pub draining: bool,
    /// Whether it holds nothing any more either.
    #[serde(default)]
    pub drained: bool,
    /// When it was first asked to drain, RFC 3339; nothing if nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_asked_at: Option<String>,
    /// Whether it was heard of lately.
    pub live: bool,
    /// When it was last heard of, RFC 3339; recorded every few seconds.
    pub last_beat_at: String,
}

/// Why a worker is to take nothing more: the body of `POST /v1/workers/{id}/drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainWorker {
    /// Why; kept in the audit trail.
    pub reason: String,
    /// Who asks; kept in the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Workers of the last hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerList {
    /// By namespace and name.
    pub workers: Vec<WorkerView>,
}
