//! Plans: what the analyzers of a template would decide, without a task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::state::names;
use crate::{
    AttemptOutcome, CursorConfig, FailureStrategy, Namespace, Problem, Queue, SharedStep, StepName,
};

/// What to plan: the body of `POST /v1/templates/plan`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanTemplate {
    /// The template as YAML. It need not be registered.
    pub template: String,
    /// The context that a task would have: a JSON object.
    pub context: Box<RawValue>,
    /// Results of steps in front of batchable steps, by name, as their handlers would return them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<String, Box<RawValue>>,
}

impl PlanTemplate {
    /// Most bytes of the body.
    pub const MAX_BYTES: usize = 4 * 1024 * 1024;
    /// Most batchable steps of a template that is planned.
    pub const MAX_STEPS: usize = 100;
    /// How long all analyzers of a plan may run together.
    pub const MAX_SECONDS: u64 = 60;
}

/// Run the handler of a batchable step that has no row, on `tasker.plan.<namespace>.<queue>`.
/// Answered with an [`AnalyzerRan`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunAnalyzer {
    /// The step's name.
    pub step: String,
    /// How long whoever asks waits for it.
    pub time_limit_ms: u64,
    /// What its handler sees.
    pub shared: SharedStep,
}

impl RunAnalyzer {
    /// Most ranges that a planned analyzer can append: they are answered, not stored.
    pub const MAX_CURSORS: usize = 100_000;
    /// Most bytes of such ranges as JSON; they must fit into one message.
    pub const MAX_CURSOR_BYTES: usize = 4 * 1024 * 1024;
}

/// How a planned analyzer ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AnalyzerRan {
    /// How.
    pub outcome: AttemptOutcome,
    /// The ranges that it appended while it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cursors: Vec<CursorConfig>,
    /// How long it ran.
    pub execution_ms: u32,
    /// What else its worker can run, which may not have been heard of yet.
    pub callables: Vec<String>,
    /// Whether that worker has others, which resolvers find when they are asked for.
    pub resolves: bool,
}

/// What would become of a task as far as its analyzers decide it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TemplatePlan {
    /// The template's namespace.
    pub namespace: Namespace,
    /// The template's name.
    pub name: StepName,
    /// The template's version.
    pub version: String,
    /// Whether nothing is violated, here or by a step.
    pub ok: bool,
    /// Why the task would not be accepted now.
    pub violations: Vec<Problem>,
    /// What may keep the task from going on: steps that no live worker could run.
    pub warnings: Vec<String>,
    /// The batchable steps in the order of the template; none if the context does not fit.
    pub steps: Vec<StepPlan>,
}

/// What was found out about one batchable step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepPlan {
    /// The step's name.
    pub step: StepName,
    /// How far it was planned.
    pub state: PlanState,
    /// Steps whose results must be given before its analyzer can be run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<StepName>,
    /// What would be wrong.
    pub violations: Vec<Problem>,
    /// How long its analyzer ran, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_ms: Option<u32>,
    /// The batch that would be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchForecast>,
}

/// How far a batchable step was planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// Its analyzer ran, and its outcome would be accepted.
    Planned,
    /// Its analyzer could not run, failed, or returned what would not be accepted.
    Refused,
    /// It waits for steps whose results were not given.
    NeedsResults,
    /// It would not exist: a decision in front of it does not name it in the result that was given.
    NotChosen,
}

names!(PlanState, "plan state",
    Planned => "planned", Refused => "refused", NeedsResults => "needs_results", NotChosen => "not_chosen");

/// A batch as it would be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchForecast {
    /// How the analyzer gave its ranges: `no_batches`, `cursor_configs`, `cursor_range` or
    /// `cursors_appended`.
    pub form: String,
    /// Why there are no batches, if the analyzer said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The template step whose instances would be the members.
    pub worker_template: String,
    /// The queue of the members.
    pub queue: Queue,
    /// How many members there would be; 1, the placeholder, without batches.
    pub members: u32,
    /// How many items all ranges hold, as the analyzer said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_items: Option<u64>,
    /// The sizes of the ranges, where all cursors are integers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<BatchSizes>,
    /// Most members that are outstanding at a time; nothing if there is no such limit.
    pub parallelism: Option<u32>,
    /// The limit of the queue in this namespace; nothing if there is none.
    pub max_running: Option<u32>,
    /// What a failing member does.
    pub failure_strategy: FailureStrategy,
    /// How many members may fail before the batch is stopped.
    pub tolerated_failures: u32,
    /// Names and ranges of all members as text, in bytes: an estimate, without what the database
    /// adds to a row.
    pub member_bytes: u64,
    /// The first ranges, at most [`BatchForecast::SHOWN`].
    pub first: Vec<Box<RawValue>>,
    /// The last ranges, as many, without those in `first`.
    pub last: Vec<Box<RawValue>>,
}

impl BatchForecast {
    /// Ranges that are shown from each end.
    pub const SHOWN: u32 = 5;
}

/// Sizes of integer ranges: end less start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSizes {
    /// The smallest.
    pub min: u64,
    /// The one in the middle; of two in the middle the smaller one.
    pub median: u64,
    /// The largest.
    pub max: u64,
}
