use serde::{Deserialize, Serialize};

use crate::Problem;

/// The answer to a request over NATS: `{"ok": …}` or `{"error": …}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// Done.
    Ok(T),
    /// Not done.
    Error(Refusal),
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} [{code}]")]
pub struct Refusal {
    /// A stable code of [`crate::code`].
    pub code: String,
    /// What went wrong and what to do.
    pub message: String,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// Each thing that is wrong with the request's document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl Refusal {
    /// A refusal that will not change by asking again.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            retryable: false,
            problems: Vec::new(),
        }
    }

    /// A refusal that asks to try again, with the same idempotency key where there is one.
    pub fn retry(code: &str, message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::new(code, message) }
    }

    /// A refusal of a document with these problems; its code is that of the first.
    pub fn of_document(what: &str, problems: Vec<Problem>) -> Self {
        let code = problems.first().map_or(crate::code::INVALID_REQUEST, |p| p.code.as_str());
        let message = match problems.as_slice() {
            [only] => format!("{what}: {only}"),
            more => format!("{what} has {} problems", more.len()),
        };
        Self { code: code.to_owned(), message, retryable: false, problems }
    }
}

impl<T> From<Result<T, Refusal>> for Reply<T> {
    fn from(result: Result<T, Refusal>) -> Self {
        match result {
            Ok(value) => Reply::Ok(value),
            Err(refusal) => Reply::Error(refusal),
        }
    }
}

impl<T> Reply<T> {
    /// The answer as a result.
    pub fn into_result(self) -> Result<T, Refusal> {
        match self {
            Reply::Ok(value) => Ok(value),
            Reply::Error(refusal) => Err(refusal),
        }
    }
}
