use serde::{Deserialize, Serialize};

use crate::state::names;

/// What a step is in its template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A plain node of the graph.
    Standard,
    /// Chooses which of its descendants exist.
    Decision,
    /// Looks at a data set and splits it into cursor ranges.
    Batchable,
    /// Runs one cursor range; its template step never runs itself.
    BatchWorker,
    /// Runs once everything that was created of what it depends on has ended.
    DeferredConvergence,
}

names!(StepKind, "step type",
    Standard => "standard", Decision => "decision", Batchable => "batchable",
    BatchWorker => "batch_worker", DeferredConvergence => "deferred_convergence");
