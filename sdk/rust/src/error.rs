use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tasker_messages::{StepFailure, code};

/// Why a handler gives up.
///
/// Any other error turns into a retryable one by `?`. For that reason this type does not implement
/// [`std::error::Error`] itself.
#[derive(Clone, PartialEq)]
pub struct StepError(Box<StepFailure>);

impl StepError {
    /// An error that another attempt would only repeat.
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(code.into(), message.into(), false, "permanent")
    }

    /// An error that another attempt may not meet.
    pub fn retryable(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(code.into(), message.into(), true, "retryable")
    }

    /// A service asked to be left alone for so long.
    pub fn rate_limited(retry_after: Duration) -> Self {
        let message = format!("rate limited, to be tried again in {retry_after:?}");
        Self::new(crate::code::RATE_LIMITED.to_owned(), message, true, "rate_limited")
            .with_retry_after(retry_after)
    }

    fn new(code: String, message: String, retryable: bool, error_type: &str) -> Self {
        Self(Box::new(StepFailure {
            code,
            message,
            retryable,
            error_type: error_type.to_owned(),
            retry_after_ms: None,
            context: Value::Null,
        }))
    }

    /// The same error with whatever else is worth knowing.
    #[must_use]
    pub fn with_context(mut self, context: Value) -> Self {
        self.0.context = context;
        self
    }

    /// The same error in another class, e.g. `timeout`.
    #[must_use]
    pub fn with_type(mut self, error_type: impl Into<String>) -> Self {
        self.0.error_type = error_type.into();
        self
    }

    /// The same error, and no further attempt before this time has passed.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.0.retry_after_ms = Some(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// The stable code.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// What went wrong and where.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether another attempt may succeed.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// An error that was reported before.
    pub fn from_failure(failure: StepFailure) -> Self {
        Self(Box::new(failure))
    }

    /// The form that is reported and stored.
    pub fn into_failure(self) -> StepFailure {
        *self.0
    }
}

impl<E: Error> From<E> for StepError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors already end with the text of their source.
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self::retryable(code::HANDLER_ERROR, message)
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.0.message, self.0.code)
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StepError").field(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing() -> Result<(), StepError> {
        "x".parse::<u8>()?;
        Ok(())
    }

    #[test]
    fn the_question_mark_makes_a_retryable_error() {
        let failure = failing().expect_err("x is no number").into_failure();
        assert_eq!((failure.code.as_str(), failure.retryable), (code::HANDLER_ERROR, true));
        assert_eq!(failure.message, "invalid digit found in string");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the list")]
    struct Unreadable(#[source] std::num::ParseIntError);

    #[test]
    fn causes_are_part_of_the_message() {
        let cause = "x".parse::<u8>().expect_err("x is no number");
        let error = StepError::from(Unreadable(cause));
        assert_eq!(error.message(), "cannot read the list: invalid digit found in string");
    }

    #[test]
    fn constructors() {
        let table = [
            (StepError::permanent("A", "m"), "A", false, "permanent", None),
            (StepError::retryable("B", "m"), "B", true, "retryable", None),
            (
                StepError::rate_limited(Duration::from_secs(3)),
                "RATE_LIMITED",
                true,
                "rate_limited",
                Some(3_000),
            ),
            (StepError::permanent("C", "m").with_type("io"), "C", false, "io", None),
        ];
        for (error, code, retryable, error_type, after) in table {
            let failure = error.into_failure();
            assert_eq!(failure.code, code);
            assert_eq!(failure.retryable, retryable, "{code}");
            assert_eq!(failure.error_type, error_type, "{code}");
            assert_eq!(failure.retry_after_ms, after, "{code}");
        }
    }
}
