//! What a handler gives back, brought into the form that is reported.

use std::any::Any;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::to_raw_value;
use tasker_messages::json::{Limits, inspect};
use tasker_messages::{AttemptOutcome, Problem, StepFailure, code};
use tasker_sdk::{StepError, StepResult};

/// The longest code and type of an error, in bytes.
const MAX_CODE_BYTES: usize = 128;
/// The longest message of an error, in bytes.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// The largest context of an error, in bytes of JSON.
const MAX_CONTEXT_BYTES: usize = 64 * 1024;

/// How a call of a handler ended.
pub(crate) enum Ending {
    /// It returned.
    Returned(Result<StepResult, StepError>),
    /// It panicked with this payload.
    Panicked(Box<dyn Any + Send>),
    /// It ran longer than this.
    TimedOut(Duration),
}

/// Turns an ending into an outcome that can be stored: a result that cannot be is a permanent error
/// of that step alone.
pub(crate) fn judge(ending: Ending, max_result_bytes: usize) -> AttemptOutcome {
    match ending {
        Ending::Returned(Ok(result)) => judge_result(&result.into_value(), max_result_bytes),
        Ending::Returned(Err(error)) => {
            let mut failure = fit(error.into_failure());
            if failure.error_type == StepFailure::UNSERVED {
                // It was served: the error is the handler's own.
                failure.error_type.clear();
            }
            AttemptOutcome::Failed(failure)
        }
        Ending::Panicked(payload) => failed(panicked(payload.as_ref())),
        Ending::TimedOut(limit) => failed(timed_out(limit)),
    }
}

/// The outcome of an error of the worker's own.
pub(crate) fn failed(error: StepError) -> AttemptOutcome {
    AttemptOutcome::Failed(fit(error.into_failure()))
}

pub(crate) fn timed_out(limit: Duration) -> StepError {
    let message = format!("the handler ran longer than its timeout of {limit:?}");
    StepError::retryable(code::HANDLER_TIMEOUT, message).with_type("timeout")
}

pub(crate) fn panicked(payload: &(dyn Any + Send)) -> StepError {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text.as_str(),
        (None, None) => "a panic without a text",
    };
    StepError::permanent(code::HANDLER_PANIC, text).with_type("panic")
}

fn judge_result(value: &Value, max_bytes: usize) -> AttemptOutcome {
    let text = match to_raw_value(value) {
        Ok(text) => text,
        Err(error) => return failed(not_storable(&error.to_string())),
    };
    match inspect(text.get(), Limits::bytes(max_bytes)) {
        Ok(()) => AttemptOutcome::Succeeded(text),
        Err(Problem { code: problem, message, .. }) if problem == code::TOO_LARGE => {
            let message =
                format!("the result is too large: {message}; store it elsewhere and return where");
            failed(StepError::permanent(code::RESULT_TOO_LARGE, message))
        }
        Err(problem) => failed(not_storable(&problem.message)),
    }
}

fn not_storable(why: &str) -> StepError {
    StepError::permanent(code::RESULT_NOT_STORABLE, format!("the result cannot be stored: {why}"))
}

/// Makes an error storable: it is reported whatever it holds.
fn fit(mut failure: StepFailure) -> StepFailure {
    fit_text(&mut failure.code, MAX_CODE_BYTES);
    fit_text(&mut failure.error_type, MAX_CODE_BYTES);
    fit_text(&mut failure.message, MAX_MESSAGE_BYTES);
    if !failure.context.is_null() {
        let storable = to_raw_value(&failure.context)
            .is_ok_and(|text| inspect(text.get(), Limits::bytes(MAX_CONTEXT_BYTES)).is_ok());
        if !storable {
            failure.context = Value::from("the context of the error cannot be stored");
        }
    }
    failure
}

fn fit_text(text: &mut String, most: usize) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
    if text.len() > most {
        let mut end = most - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(ending: Ending, expect: Result<&str, (&str, bool)>) {
        match judge(ending, 100) {
            AttemptOutcome::Succeeded(text) => assert_eq!(Ok(text.get()), expect),
            AttemptOutcome::Failed(failure) => {
                assert_eq!(Err((failure.code.as_str(), failure.retryable)), expect, "{failure:?}");
                assert!(failure.message.len() <= MAX_MESSAGE_BYTES);
                let stored = serde_json::to_string(&failure).expect("JSON");
                assert_eq!(inspect(&stored, Limits::bytes(100_000)), Ok(()), "{stored}");
            }
        }
    }

    fn returned(value: Value) -> Ending {
        Ending::Returned(Ok(value.into()))
    }

    #[test]
    fn results() {
        check(returned(json!({"a": 1})), Ok("{\"a\":1}"));
        check(returned(Value::Null), Ok("null"));
        check(returned(json!("x".repeat(98))), Ok(&format!("\"{}\"", "x".repeat(98))));
        check(returned(json!("x".repeat(99))), Err((code::RESULT_TOO_LARGE, false)));
        check(returned(json!("a\0b")), Err((code::RESULT_NOT_STORABLE, false)));
        let mut deep = json!(1);
        (0..65).for_each(|_| deep = json!([deep.take()]));
        let ending = Ending::Returned(Ok(deep.into()));
        match judge(ending, 1_000) {
            AttemptOutcome::Failed(failure) => assert_eq!(failure.code, code::RESULT_NOT_STORABLE),
            AttemptOutcome::Succeeded(_) => panic!("too deep"),
        }
    }

    #[test]
    fn errors() {
        let error = |error: StepError| Ending::Returned(Err(error));
        check(error(StepError::permanent("CODE", "text")), Err(("CODE", false)));
        check(error(StepError::retryable("CODE", "a\0b".repeat(10_000))), Err(("CODE", true)));
        check(error(StepError::retryable("\0", "ä".repeat(10_000))), Err(("\u{fffd}", true)));
        let large = json!({"x": "y".repeat(70_000)});
        check(error(StepError::permanent("C", "m").with_context(large)), Err(("C", false)));
        check(error(StepError::permanent("C", "m").with_context(json!("\0"))), Err(("C", false)));
        // A handler cannot say that it is not there, which would cost it no tries.
        let own = StepError::retryable("MINE", "x").with_type(StepFailure::UNSERVED);
        let AttemptOutcome::Failed(failure) = judge(Ending::Returned(Err(own)), 1_000) else {
            panic!("it failed");
        };
        assert!(!failure.is_unserved(), "{failure:?}");
        check(Ending::TimedOut(Duration::from_secs(1)), Err((code::HANDLER_TIMEOUT, true)));
        check(Ending::Panicked(Box::new("oh")), Err((code::HANDLER_PANIC, false)));
        check(Ending::Panicked(Box::new("oh".to_owned())), Err((code::HANDLER_PANIC, false)));
        check(Ending::Panicked(Box::new(7)), Err((code::HANDLER_PANIC, false)));
    }
}
