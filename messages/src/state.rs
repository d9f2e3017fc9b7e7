//! States as users see them and as the database stores them.

use serde::{Deserialize, Serialize};

/// A state's name that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{name}`")]
pub struct UnknownState {
    pub(crate) what: &'static str,
    pub(crate) name: String,
}

macro_rules! names {
    ($type:ident, $what:literal, $($variant:ident => $name:literal),+ $(,)?) => {
        impl $type {
            /// Every value, in the order of its declaration.
            pub const ALL: &'static [$type] = &[$($type::$variant),+];

            /// The name used in JSON, in the database and on the command line.
            pub const fn as_str(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl ::std::str::FromStr for $type {
            type Err = $crate::state::UnknownState;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $($name => Ok($type::$variant),)+
                    _ => Err($crate::state::UnknownState { what: $what, name: name.to_owned() }),
                }
            }
        }
    };
}
pub(crate) use names;

/// State of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Accepted; nothing has finished or is known to run yet.
    Pending,
    /// At least one step has started.
    InProgress,
    /// Ended: steps remain behind a failed one. A repair revives the task.
    BlockedByFailures,
    /// Ended: every step succeeded.
    Complete,
    /// Ended: a step failed and nothing remains behind it. A repair revives the task.
    Error,
    /// Ended by request.
    Cancelled,
    /// Ended by hand.
    ResolvedManually,
}

names!(TaskState, "task state",
    Pending => "pending", InProgress => "in_progress", BlockedByFailures => "blocked_by_failures",
    Complete => "complete", Error => "error", Cancelled => "cancelled",
    ResolvedManually => "resolved_manually");

impl TaskState {
    /// Whether nothing more happens without a repair.
    pub const fn is_terminal(self) -> bool {
        !matches!(self, TaskState::Pending | TaskState::InProgress)
    }
}

/// State of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Waits for parents.
    Pending,
    /// Ready, or already on the bus.
    Enqueued,
    /// A worker has said that it runs it.
    InProgress,
    /// Failed and will run again.
    WaitingForRetry,
    /// A batchable step whose outcome is stored but whose batch is not sealed.
    Expanding,
    /// Ended well.
    Complete,
    /// Ended badly.
    Error,
    /// Ended by a stop.
    Cancelled,
    /// Ended by hand.
    ResolvedManually,
}

names!(StepState, "step state",
    Pending => "pending", Enqueued => "enqueued", InProgress => "in_progress",
    WaitingForRetry => "waiting_for_retry", Expanding => "expanding", Complete => "complete",
    Error => "error", Cancelled => "cancelled", ResolvedManually => "resolved_manually");

impl StepState {
    /// Whether the step has an outcome.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            StepState::Complete
                | StepState::Error
                | StepState::Cancelled
                | StepState::ResolvedManually
        )
    }
}

/// State of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Members are being written; none is visible.
    Expanding,
    /// All members exist and may run.
    Sealed,
    /// Every member ended and the convergence was decided.
    Converged,
    /// Every member ended and none succeeded, or a failure rule stopped it.
    Failed,
    /// Stopped by request.
    Cancelled,
}

names!(BatchState, "batch state",
    Expanding => "expanding", Sealed => "sealed", Converged => "converged", Failed => "failed",
    Cancelled => "cancelled");

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::str::FromStr;

    use super::*;

    #[test]
    fn names_agree_with_json() {
        fn check<T>(all: &[T])
        where
            T: Copy + Serialize + FromStr + fmt::Display + PartialEq + fmt::Debug,
            <T as FromStr>::Err: fmt::Debug,
        {
            for &state in all {
                let json = serde_json::to_value(state).expect("a state is a string");
                assert_eq!(json, state.to_string());
                assert_eq!(state.to_string().parse::<T>().expect("its own name"), state);
            }
        }
        check(TaskState::ALL);
        check(StepState::ALL);
        check(BatchState::ALL);
        check(crate::Identity::ALL);
        assert!("Complete".parse::<TaskState>().is_err());
    }
}
