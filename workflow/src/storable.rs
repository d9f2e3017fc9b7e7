//! Whether a handler's result can be stored, and read again by whoever depends on it.

use serde_json::Value;
use tasker_messages::json::{Limits, inspect};
use tasker_messages::{StepFailure, code};

/// Checks a result, which is JSON, before it is stored.
///
/// # Errors
/// The error that its step ends with: `RESULT_TOO_LARGE` or `RESULT_NOT_STORABLE`.
#[expect(clippy::result_large_err, reason = "the failure is stored as it is")]
pub fn storable(result: &str, max_bytes: usize) -> Result<(), StepFailure> {
    inspect(result, Limits::bytes(max_bytes)).map_err(|problem| {
        let code = if problem.code == code::TOO_LARGE {
            code::RESULT_TOO_LARGE
        } else {
            code::RESULT_NOT_STORABLE
        };
        StepFailure {
            code: code.to_owned(),
            message: format!("the handler's result cannot be stored: {}", problem.message),
            retryable: false,
            error_type: "result".to_owned(),
            retry_after_ms: None,
            context: Value::Null,
        }
    })
}
