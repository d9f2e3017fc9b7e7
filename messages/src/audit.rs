//! What a batch's rows say about themselves.

use serde::{Deserialize, Serialize};

use crate::BatchView;

/// A batch held against its members.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchAudit {
    /// The batch as it counts itself.
    pub batch: BatchView,
    /// Whether every check passed.
    pub ok: bool,
    /// The checks that apply to the batch.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub ok: bool,
    /// What was found.
    pub message: String,
}
