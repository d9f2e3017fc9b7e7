//! What `tasker verify` finds out about all rows.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The invariants of a cluster, held against its rows in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Whether all of them hold.
    pub ok: bool,
    /// Tasks in the snapshot.
    pub tasks: u64,
    /// Steps in the snapshot, members of batches among them.
    pub steps: u64,
    /// Outcomes in the snapshot.
    pub outcomes: u64,
    /// One after the other.
    pub invariants: Vec<Invariant>,
}

/// One invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariant {
    /// `I1` to `I8`, and `I11`.
    pub id: String,
    /// What must hold.
    pub rule: String,
    /// Whether it does.
    pub ok: bool,
    /// How often it does not.
    pub violations: u64,
    /// The first of those.
    pub offenders: Vec<Offender>,
}

/// Something that breaks an invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offender {
    /// A task, a step or a batch; all zeros where it is none of them.
    pub id: Uuid,
    /// What is wrong with it.
    pub what: String,
}
