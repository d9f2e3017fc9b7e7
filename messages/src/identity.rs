use serde::{Deserialize, Serialize};

use crate::state::names;

/// What makes two submissions the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// What is asked for: template, version and context. The same again finds the task.
    Strict,
    /// The idempotency key, which must be there.
    CallerProvided,
    /// Nothing: each submission makes a task. A key of the transport still makes it safe to send one
    /// submission again.
    AlwaysUnique,
}

names!(Identity, "identity",
    Strict => "strict", CallerProvided => "caller_provided", AlwaysUnique => "always_unique");
