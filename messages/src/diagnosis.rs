//! What `tasker doctor` finds out about a cluster.

use serde::{Deserialize, Serialize};

use crate::Recovery;

/// The state of a cluster, as its rows, its bus and its workers tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Whether nothing is wrong. What only deserves attention does not count.
    pub ok: bool,
    /// One after the other.
    pub findings: Vec<Finding>,
    /// What the cluster has mended by itself lately, the last first.
    pub recoveries: Vec<Recovery>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at, such as `queues`.
    pub id: String,
    /// How it is.
    pub condition: Condition,
    /// What was seen.
    pub what: String,
    /// What to do about it; empty if there is nothing to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advice: String,
    /// Where, and how much.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<String>,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// As it should be.
    Ok,
    /// It deserves attention, or mends itself.
    Attention,
    /// It does not work.
    Wrong,
}
