//! What could not be worked off and waits for somebody to decide.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state::names;
use crate::{Namespace, Problem, StepHistory, StepId, TaskId, TaskSummary, code};

/// What a dead letter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterKind {
    /// A message of the submit stream that was refused.
    Message,
    /// A member of a batch with the strategy `isolate` that failed.
    Member,
    /// A task that passed a limit of its lifecycle.
    Task,
}

names!(DeadLetterKind, "kind of dead letter",
    Message => "message", Member => "member", Task => "task");

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number.
    pub id: i64,
    /// What it is.
    pub kind: DeadLetterKind,
    /// The namespace; of a refused message as its subject had it, which need not be a valid one.
    pub namespace: String,
    /// The code of the error.
    pub code: String,
    /// The error for people.
    pub message: String,
    /// The same for errors that differ in numbers and ids alone.
    pub fingerprint: String,
    /// When it was kept, RFC 3339.
    pub created_at: String,
    /// When it was redriven, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven_at: Option<String>,
    /// The task that a redriven message or task was submitted as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven_task: Option<TaskId>,
    /// The task that it is, or is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<TaskId>,
    /// The member that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_id: Option<StepId>,
    /// The attempt that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The subject of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// A page of dead letters, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterList {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// Give this as `after` for the next page; `None` at the end.
    pub next: Option<i64>,
}

/// Open letters with one fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterGroup {
    /// What they have in common.
    pub fingerprint: String,
    /// How many there are.
    pub count: u64,
    /// When the first was kept, RFC 3339.
    pub first_at: String,
    /// The newest of them.
    pub newest: DeadLetter,
}

/// Open letters by fingerprint, the largest group first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterGroups {
    /// At most [`DeadLetterGroups::MOST`].
    pub groups: Vec<DeadLetterGroup>,
}

impl DeadLetterGroups {
    /// Groups that are listed.
    pub const MOST: u32 = 100;
}

/// A dead letter with everything that is known about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// The letter.
    pub letter: DeadLetter,
    /// The whole error.
    pub error: Value,
    /// The message's payload as text; what is not UTF-8 is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The member as it is now, with its failed attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepHistory>,
    /// The task as it is now, in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskSummary>,
}

/// Which dead letters are to be removed: the body of `POST /v1/dlq/purge`. What is not said does not
/// matter, but something must be said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purge {
    /// These, at most [`Purge::MOST_IDS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<i64>>,
    /// Those of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// Those with this fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Those that are older than so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than_days: Option<u32>,
    /// Those that were redriven, or those that were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven: Option<bool>,
    /// Why; kept in the audit trail.
    pub reason: String,
    /// Who asks; kept in the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl Purge {
    /// Letters that can be named at a time.
    pub const MOST_IDS: usize = 10_000;
    /// The longest age that can be named.
    pub const MOST_DAYS: u32 = 36_500;

    /// Checks everything but the reason.
    ///
    /// # Errors
    /// That it says nothing, or the first value that is outside of its bounds.
    pub fn check(&self) -> Result<(), Problem> {
        let invalid =
            |field: &str, message: String| Problem::new(code::INVALID_VALUE, message).at(field);
        let says_nothing = self.ids.is_none()
            && self.namespace.is_none()
            && self.fingerprint.is_none()
            && self.older_than_days.is_none()
            && self.redriven.is_none();
        if says_nothing {
            let what =
                "ids, namespace, fingerprint, older_than_days or redriven must say which letters";
            return Err(invalid("", what.to_owned()));
        }
        if self.older_than_days.is_some_and(|days| days > Self::MOST_DAYS) {
            return Err(invalid("older_than_days", format!("must be at most {}", Self::MOST_DAYS)));
        }
        if self.ids.as_ref().is_some_and(|ids| ids.len() > Self::MOST_IDS) {
            return Err(invalid("ids", format!("must be at most {}", Self::MOST_IDS)));
        }
        Ok(())
    }
}

/// What a purge has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// How many letters were removed.
    pub letters: u64,
}

/// What became of a dead letter that was redriven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// The letter.
    pub id: i64,
    /// The task that runs: a new one, or that of the member.
    pub task_id: TaskId,
}
