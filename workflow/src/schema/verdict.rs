//! What a violation means: a submission is refused, a step has failed.

use serde_json::{Value, json};
use tasker_messages::{Problem, StepFailure, code};

use super::{Schema, Violation};

/// What of a task's context does not fit.
pub fn check_context(schema: &Schema, context: &Value) -> Vec<Problem> {
    let problem = |violation: Violation| {
        Problem::new(code::CONTEXT_SCHEMA_VIOLATION, violation.message).at(violation.path)
    };
    schema.check(context, "context").into_iter().map(problem).collect()
}

/// Whether a step's result, as JSON text, fits.
///
/// # Errors
/// A permanent error of the step: the handler would return the same again.
#[expect(clippy::result_large_err, reason = "the failure is stored as it is")]
pub fn check_result(schema: &Schema, result: &str) -> Result<(), StepFailure> {
    let violations = match serde_json::from_str(result) {
        Ok(value) => schema.check(&value, "result"),
        Err(error) => {
            vec![Violation { path: "result".to_owned(), message: format!("is no JSON: {error}") }]
        }
    };
    let Some(first) = violations.first() else { return Ok(()) };
    let more = match violations.len() {
        1 => String::new(),
        n => format!(", and {} more", n - 1),
    };
    let told: Vec<Value> =
        violations.iter().map(|v| json!({"path": v.path, "message": v.message})).collect();
    Err(StepFailure {
        code: code::RESULT_SCHEMA_VIOLATION.to_owned(),
        message: format!(
            "the result does not fit the step's result_schema: {}: {}{more}",
            first.path, first.message
        ),
        retryable: false,
        error_type: "result".to_owned(),
        retry_after_ms: None,
        context: json!({"violations": told}),
    })
}
