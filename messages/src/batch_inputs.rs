use serde::{Deserialize, Serialize};

use crate::CursorConfig;
use crate::state::names;

/// What a failing member does to its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureStrategy {
    /// All members run; the aggregator sees what failed.
    #[default]
    ContinueOnFailure,
    /// The first failed member stops the batch.
    FailFast,
    /// As `continue_on_failure`, and each failed member opens a dead letter.
    #[serde(alias = "isolate_failed")]
    Isolate,
}

names!(FailureStrategy, "failure strategy",
    ContinueOnFailure => "continue_on_failure", FailFast => "fail_fast", Isolate => "isolate");

/// What all members of a batch have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BatchMetadata {
    /// Items between two checkpoints; 0 when the template does not say.
    #[serde(default)]
    pub checkpoint_interval: u32,
    /// The name of the field that the cursors run over.
    #[serde(default)]
    pub cursor_field: String,
    /// What a failing member does to its batch.
    #[serde(default)]
    pub failure_strategy: FailureStrategy,
}

/// The `inputs` of a batch worker. Owned by the orchestrator; handlers read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchWorkerInputs {
    /// The range.
    pub cursor: CursorConfig,
    /// What all members of the batch have in common.
    pub batch_metadata: BatchMetadata,
    /// Whether this is the placeholder of a batch without ranges.
    pub is_no_op: bool,
}
