//! Messages that orchestrators publish: work items and commands.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{
    BatchId, BatchMetadata, BatchState, CursorConfig, NodeId, Queue, StepId, StepKind, TaskId,
};

/// One dispatch of one step, on `tasker.work.<namespace>.<queue>`.
///
/// Field names are short because a batch of a million members sends a million of these.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkItem {
    /// The task.
    #[serde(rename = "t")]
    pub task_id: TaskId,
    /// The step.
    #[serde(rename = "s")]
    pub step_id: StepId,
    /// The step's name; a member's is `<template>_<batch_id>`.
    #[serde(rename = "n")]
    pub name: Arc<str>,
    /// The step of the template: what the shared part is cached under, together with the task.
    #[serde(rename = "k")]
    pub template_step: Arc<str>,
    /// The attempt that this dispatch starts unless a claim raises it. Fences results.
    #[serde(rename = "a")]
    pub attempt: u32,
    /// Identifies the message; a later dispatch of the same step has a higher one.
    #[serde(rename = "d")]
    pub dispatch_seq: u32,
    /// How much of the retry budget is used up.
    #[serde(rename = "r", default, skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// Whether even a first delivery must claim.
    #[serde(rename = "c", default, skip_serializing_if = "is_false")]
    pub claim_required: bool,
    /// Until when even a first delivery need not claim, in milliseconds since 1970 by the server's clock. If
    /// the server has stored it later, another copy may have been stored so long before that the server
    /// did not take this one for a duplicate.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub fresh_until_ms: Option<i64>,
    /// The orchestrator that published it and would like the outcome.
    #[serde(rename = "o")]
    pub node: NodeId,
    /// The range of a member: a [`CursorConfig`], kept as the text that was stored.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Box<RawValue>>,
    /// The shared part, when it is small; else the worker asks for it once per task and template
    /// step. A [`SharedStep`].
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Arc<RawValue>>,
    /// Whether its queue has a limit, so that what waits on it need not come soon.
    #[serde(rename = "l", default, skip_serializing_if = "is_false")]
    pub limited: bool,
    /// Further members of the same batch that the message brings, which are in the same attempt and
    /// dispatch as this one.
    #[serde(rename = "b", default, skip_serializing_if = "Vec::is_empty")]
    pub bundled: Vec<BundledMember>,
}

/// A member that comes with the message of another one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundledMember {
    /// Its place in the batch.
    #[serde(rename = "p")]
    pub ordinal: u32,
    /// Its name.
    #[serde(rename = "n")]
    pub name: Arc<str>,
    /// Its range, as [`WorkItem::cursor`].
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Box<RawValue>>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// What all dispatches of one template step in one task have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SharedStep {
    /// What the step is.
    pub kind: StepKind,
    /// Which handler runs it.
    pub callable: String,
    /// Which entry point of the handler.
    #[serde(default = "default_method", skip_serializing_if = "is_default_method")]
    pub method: String,
    /// The resolver that is asked for the handler, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// The handler group.
    #[serde(default)]
    pub queue: Queue,
    /// `handler.initialization` of the template.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub config: Value,
    /// The context of the task.
    pub context: Value,
    /// How long the handler may run; `None` is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The retry budget, the first run included.
    pub max_attempts: u32,
    /// Whether the result is checked against a schema before it is stored; the report says so again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_schema: bool,
    /// Whether the step publishes domain events; the report says so again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_events: bool,
    /// Results of the step's parents by name, without those of batch members.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<String, DependencyResult>,
    /// For a batchable step: how the template wishes it to be split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitWishes>,
    /// For a member: what it has in common with the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchMetadata>,
    /// For a member: whether it is the placeholder of a batch without ranges.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_no_op: bool,
    /// For a convergence: the batches whose members it aggregates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<BatchSummary>,
}

/// How a template wishes a batchable step to be split, in its `batch_config`. The analyzer decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitWishes {
    /// The step whose instances run the batches.
    pub worker_template: String,
    /// Items in one batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u32>,
    /// Most batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_workers: Option<u32>,
}

impl SharedStep {
    /// The entry point of a handler where none is named.
    pub const DEFAULT_METHOD: &str = "call";
}

fn default_method() -> String {
    SharedStep::DEFAULT_METHOD.to_owned()
}

fn is_default_method(method: &str) -> bool {
    method == SharedStep::DEFAULT_METHOD
}

/// One parent's outcome as a child sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyResult {
    /// The handler's result.
    Result(Value),
    /// The parent ended in error, with this message; only a convergence sees this.
    Failed(String),
    /// The result is too large to travel along and is read on demand.
    TooLarge {
        /// The size of the result as JSON text.
        bytes: u64,
    },
}

/// A batch as its aggregator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSummary {
    /// The batch.
    pub batch_id: BatchId,
    /// The analyzer.
    pub batchable_step: String,
    /// The template step whose instances are the members.
    pub worker_template: String,
    /// Whether the analyzer found nothing to do, so that the only member is a placeholder.
    pub is_no_op: bool,
    /// How many members there are.
    pub worker_count: u32,
    /// How many members succeeded.
    pub succeeded: u32,
    /// How many members failed.
    pub failed: u32,
    /// The batch's state when the convergence was decided.
    pub state: BatchState,
}

/// Command: expand the stored outcome of a batchable step into a batch, on
/// `tasker.control.batch.<namespace>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessBatchableStep {
    /// The batchable step.
    pub step: StepId,
}

impl WorkItem {
    /// One work item for each step that the message brings, itself first.
    pub fn unbundle(mut self) -> Vec<WorkItem> {
        let members = std::mem::take(&mut self.bundled);
        let of = |member: BundledMember| WorkItem {
            step_id: self.step_id.sibling(member.ordinal),
            name: member.name,
            template_step: Arc::clone(&self.template_step),
            cursor: member.cursor,
            shared: self.shared.clone(),
            bundled: Vec::new(),
            ..self
        };
        let mut items: Vec<WorkItem> = members.into_iter().map(of).collect();
        items.insert(0, self);
        items
    }

    /// The member's range, if the step is a member.
    pub fn cursor_config(&self) -> Result<Option<CursorConfig>, serde_json::Error> {
        self.cursor.as_deref().map(|text| serde_json::from_str(text.get())).transpose()
    }
}
