use std::fmt;

use serde::Deserialize;
use tasker_messages::{Problem, code};

use crate::exit::Code;
use crate::table::printable;

/// Why a request to the API was not answered as hoped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No answer, for as long as it was tried. The cause is part of the message and therefore no
    /// `source`, which would be said a second time.
    #[error("no answer from {url}: {}", root_cause(cause))]
    Unreachable { url: String, cause: reqwest::Error },
    /// The cluster said no.
    #[error("{0}")]
    Refused(Refused),
    /// An answer that this version does not understand.
    #[error("the answer of {url} cannot be read")]
    Unreadable {
        url: String,
        #[source]
        source: serde_json::Error,
    },
}

/// An answer other than 2xx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    status: u16,
    code: String,
    detail: String,
    problems: Vec<Problem>,
}

/// The part of `application/problem+json` that is used here.
#[derive(Deserialize)]
struct ProblemDocument {
    #[serde(default)]
    title: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    problems: Vec<Problem>,
}

impl Refused {
    /// Reads the body of an answer; one that is no problem document is shown as it is, shortened.
    pub(super) fn new(status: u16, body: &str) -> Self {
        match serde_json::from_str::<ProblemDocument>(body) {
            Ok(document) => Self {
                status,
                code: document.code,
                detail: if document.detail.is_empty() { document.title } else { document.detail },
                problems: document.problems,
            },
            Err(_) => Self {
                status,
                code: String::new(),
                detail: body.chars().take(200).collect(),
                problems: Vec::new(),
            },
        }
    }

    fn exit_code(&self) -> Code {
        match (self.code.as_str(), self.status) {
            (code::TASK_NOT_FOUND | code::TEMPLATE_NOT_FOUND, _) => Code::NotFound,
            (code::TASK_ENDED, _) => Code::Failed,
            (_, 401 | 403) => Code::NotAuthorised,
            (_, 404) => Code::NotFound,
            (_, 400..=499) => Code::Usage,
            (_, 502..=504) => Code::TimedOut,
            _ => Code::Failed,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.as_str() {
            "" => write!(f, "the cluster answered {}", self.status)?,
            detail => f.write_str(&printable(detail))?,
        }
        if !self.code.is_empty() && !self.detail.contains(&format!("[{}]", self.code)) {
            write!(f, " [{}]", self.code)?;
        }
        // A single problem is often the whole detail.
        let said = |problem: &Problem| self.detail.contains(&problem.to_string());
        self.problems
            .iter()
            .filter(|problem| !said(problem))
            .try_for_each(|problem| write!(f, "\n  {}", printable(&problem.to_string())))
    }
}

impl ClientError {
    /// Whether the same request may succeed in a moment.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } => true,
            // A namespace that is full stays so for longer than anybody waits here.
            ClientError::Refused(refused) => {
                matches!(refused.status, 502 | 503) || refused.code == code::TOO_MANY_REQUESTS
            }
            ClientError::Unreadable { .. } => false,
        }
    }

    /// Whether the cluster refused with this code of [`tasker_messages::code`].
    pub(crate) fn is(&self, code: &str) -> bool {
        matches!(self, ClientError::Refused(refused) if refused.code == code)
    }

    pub(crate) fn exit_code(&self) -> Code {
        match self {
            ClientError::Unreachable { .. } => Code::TimedOut,
            ClientError::Refused(refused) => refused.exit_code(),
            ClientError::Unreadable { .. } => Code::Failed,
        }
    }
}

/// `reqwest` says "error sending request"; the reason (refused, reset, timed out) is at the end of
/// the chain.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        for (status, code, expect) in [
            (503, code::UNAVAILABLE, true),
            (429, code::TOO_MANY_REQUESTS, true),
            (429, code::NAMESPACE_FULL, false),
            (401, code::NOT_AUTHENTICATED, false),
            (403, code::NOT_PERMITTED, false),
        ] {
            let body = format!(r#"{{"code":"{code}"}}"#);
            let error = ClientError::Refused(Refused::new(status, &body));
            assert_eq!(error.may_pass(), expect, "{code}");
        }
    }

    #[test]
    fn refusals_are_readable() {
        let check = |status: u16, body: &str, text: &str, code: Code| {
            let refused = Refused::new(status, body);
            assert_eq!(refused.to_string(), text);
            assert_eq!(refused.exit_code(), code, "{body}");
        };
        check(
            400,
            r#"{"title":"Bad","code":"UNKNOWN_KEY","detail":"the template has 2 problems","problems":[
                {"code":"UNKNOWN_KEY","field":"steps[0].x","line":3,"message":"unknown key"},
                {"code":"MISSING_KEY","field":"name","message":"`name` is missing"}]}"#,
            "the template has 2 problems [UNKNOWN_KEY]\n  \
             line 3: steps[0].x: unknown key [UNKNOWN_KEY]\n  \
             name: `name` is missing [MISSING_KEY]",
            Code::Usage,
        );
        check(
            400,
            r#"{"code":"MISSING_KEY","detail":"the request: name: gone [MISSING_KEY]",
                "problems":[{"code":"MISSING_KEY","field":"name","message":"gone"}]}"#,
            "the request: name: gone [MISSING_KEY]",
            Code::Usage,
        );
        check(
            404,
            r#"{"code":"TASK_NOT_FOUND","detail":"no such task"}"#,
            "no such task [TASK_NOT_FOUND]",
            Code::NotFound,
        );
        check(401, "", "the cluster answered 401", Code::NotAuthorised);
        check(
            403,
            r#"{"code":"FOREIGN_NAMESPACE","detail":"not yours"}"#,
            "not yours [FOREIGN_NAMESPACE]",
            Code::NotAuthorised,
        );
        check(500, "<html>\u{1b}", "<html>\\u{1b}", Code::Failed);
        check(503, "{}", "the cluster answered 503", Code::TimedOut);
    }
}
