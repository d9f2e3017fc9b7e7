//! How commands end: one table of exit codes for scripts.

use std::io;
use std::process::ExitCode;

use crate::client::ClientError;
use crate::output;

/// The exit codes other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The command failed, or the task ended otherwise than complete.
    Failed = 1,
    /// The command line or a document is wrong.
    Usage = 2,
    NotAuthorised = 3,
    NotFound = 4,
    TimedOut = 5,
    /// A check was made and did not pass.
    NotVerified = 6,
}

/// An end with a code and, unless everything was said already, a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Exit {
    code: Code,
    message: String,
}

impl Exit {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// An end about which nothing more needs to be said.
    pub(crate) fn quietly(code: Code) -> Self {
        Self::new(code, "")
    }
}

/// Prints an error and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        // The reader, `head` for instance, has seen enough.
        return ExitCode::SUCCESS;
    }
    let message = format!("{error:#}");
    if !message.is_empty() {
        output::note(&message);
    }
    ExitCode::from(code_of(error) as u8)
}

fn code_of(error: &anyhow::Error) -> Code {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return exit.code;
    }
    error.downcast_ref::<ClientError>().map_or(Code::Failed, ClientError::exit_code)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_code_survives_context() {
        let error = Err::<(), _>(Exit::new(Code::NotFound, "no task")).context("looking");
        let error = error.expect_err("an error");
        assert_eq!(code_of(&error), Code::NotFound);
        assert_eq!(format!("{error:#}"), "looking: no task");
        assert_eq!(code_of(&anyhow::anyhow!("x")), Code::Failed);
    }
}
