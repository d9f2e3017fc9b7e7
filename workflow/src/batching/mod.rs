//! From a batchable step's result to the members of its batch.

mod audit;
mod budget;
mod forecast;
mod list;
mod outcome;

use tasker_messages::cursor::{NO_OP_BATCH_ID, Pieces};
use tasker_messages::{StepFailure, code};

pub use self::audit::{Break, MemberFacts, audit};
pub use self::budget::{Tolerated, failure_budget, stopped};
pub use self::forecast::forecast;
pub use self::list::check_page;
use crate::template::{StepTemplate, Template};

/// The members of a batch, as the analyzer decided.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchPlan {
    /// There is nothing to do: one placeholder runs, so that the aggregator learns of it.
    NoBatches,
    /// The ranges that were spelled out.
    List(Vec<Member>),
    /// An integer range in pieces of one size.
    Range(Pieces),
    /// So many ranges were stored in pages while the analyzer ran.
    Appended(u32),
}

/// One member of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Unique within the batch.
    pub batch_id: String,
    /// The range: a `CursorConfig` as JSON text. As far as the analyzer wrote it, it is kept as it
    /// was, because numbers in it may be longer than any number type.
    pub cursor_json: String,
}

impl BatchPlan {
    /// How many members there will be; 1 for the placeholder.
    pub fn expected(&self) -> u32 {
        match self {
            BatchPlan::NoBatches => 1,
            BatchPlan::List(members) => members.len() as u32,
            BatchPlan::Range(pieces) => pieces.count(),
            BatchPlan::Appended(count) => *count,
        }
    }

    /// Whether the only member is the placeholder of a batch without ranges.
    pub fn is_no_op(&self) -> bool {
        matches!(self, BatchPlan::NoBatches)
    }

    /// The member with this ordinal, from 0. `None` behind the last one, and for appended ranges,
    /// which are read from their pages.
    pub fn member(&self, ordinal: u32) -> Option<Member> {
        if ordinal >= self.expected() {
            return None;
        }
        match self {
            BatchPlan::NoBatches => Some(placeholder()),
            BatchPlan::List(members) => members.get(ordinal as usize).cloned(),
            BatchPlan::Range(pieces) => Some(piece(pieces, ordinal)),
            BatchPlan::Appended(_) => None,
        }
    }
}

fn placeholder() -> Member {
    Member {
        batch_id: NO_OP_BATCH_ID.to_owned(),
        cursor_json: cursor_json(NO_OP_BATCH_ID, 0, 0, 0),
    }
}

fn piece(pieces: &Pieces, ordinal: u32) -> Member {
    let (start, end) = pieces.bounds(ordinal);
    let batch_id = tasker_messages::cursor::batch_id(ordinal);
    Member { cursor_json: cursor_json(&batch_id, start, end, end - start), batch_id }
}

/// Written by hand because a million of these are made; the identifier needs no escaping.
fn cursor_json(batch_id: &str, start: u64, end: u64, size: u64) -> String {
    format!(
        "{{\"batch_id\":\"{batch_id}\",\"start_cursor\":{start},\"end_cursor\":{end},\
         \"batch_size\":{size}}}"
    )
}

/// Judges the result of a batchable step.
///
/// `result` is the JSON text of the handler's result. `appended` is how many cursors are stored in
/// gap-free pages of this attempt, if there are any. More than `max_members` are refused.
///
/// # Errors
/// What is wrong with the outcome, as a permanent failure of the step.
#[expect(clippy::result_large_err, reason = "once per batch, and the failure is stored as it is")]
pub fn plan(
    template: &Template,
    step: &StepTemplate,
    result: &str,
    appended: Option<u32>,
    max_members: u32,
) -> Result<BatchPlan, StepFailure> {
    outcome::Judge { template, step, appended, max_members }.plan(result).map_err(|problem| {
        let field = problem.field;
        let place = if field.is_empty() { String::new() } else { format!("{field}: ") };
        StepFailure {
            code: problem.code,
            message: format!("{place}{}", problem.message),
            retryable: false,
            error_type: ERROR_TYPE.to_owned(),
            retry_after_ms: None,
            context: serde_json::Value::Null,
        }
    })
}

const ERROR_TYPE: &str = "batch_outcome";

/// The failure of a batch of which no member succeeded, so that its aggregator cannot run.
pub fn all_failed(worker_template: &str, failed: u32) -> StepFailure {
    StepFailure {
        code: code::BATCH_ALL_FAILED.to_owned(),
        message: format!(
            "all {failed} members of `{worker_template}` failed, so there is nothing to aggregate"
        ),
        retryable: false,
        error_type: ERROR_TYPE.to_owned(),
        retry_after_ms: None,
        context: serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests;
