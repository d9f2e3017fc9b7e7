//! Which states follow which.

use std::fmt;

use tasker_messages::{StepState, TaskState};

/// Something that happens to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepEvent {
    /// The last parent that it waited for has ended.
    ParentsDone,
    /// A worker says that it runs it.
    Started,
    /// Its dispatch was lost, or its worker vanished: it is sent again.
    Redispatched,
    /// An attempt failed and another one follows.
    RetryScheduled,
    /// The time of the next attempt has come.
    RetryDue,
    /// A batchable step decided its batches.
    BatchDecided,
    /// Its batch is complete.
    BatchSealed,
    /// The last attempt succeeded.
    Succeeded,
    /// The last attempt failed.
    Failed,
    /// The task or batch was stopped.
    Cancelled,
    /// Somebody wants another try.
    Reset,
    /// Somebody settled it by hand.
    ResolvedByHand,
}

impl StepEvent {
    /// Every event.
    pub const ALL: &'static [StepEvent] = &[
        StepEvent::ParentsDone,
        StepEvent::Started,
        StepEvent::Redispatched,
        StepEvent::RetryScheduled,
        StepEvent::RetryDue,
        StepEvent::BatchDecided,
        StepEvent::BatchSealed,
        StepEvent::Succeeded,
        StepEvent::Failed,
        StepEvent::Cancelled,
        StepEvent::Reset,
        StepEvent::ResolvedByHand,
    ];
}

/// Something that happens to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEvent {
    /// A step has started.
    Started,
    /// No step is live any more; [`task_end`] says which end it is.
    StepsEnded {
        /// Steps that wait.
        pending: u32,
        /// Steps that failed.
        failed: u32,
    },
    /// Somebody wants it stopped.
    Cancelled,
    /// One of its steps was repaired.
    Revived,
    /// Somebody settled it by hand.
    ResolvedByHand,
}

/// An event that does not belong to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} does not apply in the state {state}")]
pub struct Refused<S, E>
where
    S: fmt::Debug + fmt::Display,
    E: fmt::Debug,
{
    /// The state.
    pub state: S,
    /// The event.
    pub event: E,
}

/// The state of a step after an event.
///
/// # Errors
/// The event does not belong to the state. An event that repeats is refused as well: whoever sees
/// it twice has to know that the first one counted.
pub fn step_transition(
    state: StepState,
    event: StepEvent,
) -> Result<StepState, Refused<StepState, StepEvent>> {
    use StepEvent as E;
    use StepState as S;
    match (state, event) {
        (S::Pending, E::ParentsDone) => Ok(S::Enqueued),
        (S::Enqueued, E::Started) => Ok(S::InProgress),
        (S::Enqueued | S::InProgress, E::Redispatched) => Ok(S::Enqueued),
        (S::Enqueued | S::InProgress, E::RetryScheduled) => Ok(S::WaitingForRetry),
        (S::WaitingForRetry, E::RetryDue) => Ok(S::Enqueued),
        (S::Enqueued | S::InProgress, E::BatchDecided) => Ok(S::Expanding),
        (S::Expanding, E::BatchSealed) => Ok(S::Complete),
        (S::Enqueued | S::InProgress, E::Succeeded) => Ok(S::Complete),
        (S::Enqueued | S::InProgress | S::Expanding, E::Failed) => Ok(S::Error),
        (S::Error | S::Cancelled, E::Reset) => Ok(S::Enqueued),
        (S::Error | S::Cancelled, E::ResolvedByHand) => Ok(S::ResolvedManually),
        (state, E::Cancelled) if !state.is_terminal() => Ok(S::Cancelled),
        (state, event) => Err(Refused { state, event }),
    }
}

/// The state of a task after an event.
///
/// # Errors
/// The event does not belong to the state.
pub fn task_transition(
    state: TaskState,
    event: TaskEvent,
) -> Result<TaskState, Refused<TaskState, TaskEvent>> {
    use TaskEvent as E;
    use TaskState as S;
    let refused = Err(Refused { state, event });
    match (state, event) {
        (S::Pending | S::InProgress, E::Started) => Ok(S::InProgress),
        (S::Pending | S::InProgress, E::StepsEnded { pending, failed }) => {
            task_end(0, pending, failed).map_or(refused, Ok)
        }
        (S::Pending | S::InProgress, E::Cancelled) => Ok(S::Cancelled),
        (S::BlockedByFailures | S::Error | S::Cancelled, E::Revived) => Ok(S::InProgress),
        (S::BlockedByFailures | S::Error, E::ResolvedByHand) => Ok(S::ResolvedManually),
        _ => refused,
    }
}

/// How a task ends by its steps: `None` while one is active. Steps that wait when none is active
/// wait behind a failure.
pub fn task_end(active: u32, pending: u32, failed: u32) -> Option<TaskState> {
    match (active, pending, failed) {
        (1.., _, _) => None,
        (0, 0, 0) => Some(TaskState::Complete),
        (0, 0, _) => Some(TaskState::Error),
        (0, _, _) => Some(TaskState::BlockedByFailures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps() {
        use StepEvent as E;
        use StepState as S;
        // One row per state: the events that apply, and where they lead. All others are refused.
        let table: [(S, &[(E, S)]); 9] = [
            (S::Pending, &[(E::ParentsDone, S::Enqueued), (E::Cancelled, S::Cancelled)]),
            (
                S::Enqueued,
                &[
                    (E::Started, S::InProgress),
                    (E::Redispatched, S::Enqueued),
                    (E::RetryScheduled, S::WaitingForRetry),
                    (E::BatchDecided, S::Expanding),
                    (E::Succeeded, S::Complete),
                    (E::Failed, S::Error),
                    (E::Cancelled, S::Cancelled),
                ],
            ),
            (
                S::InProgress,
                &[
                    (E::Redispatched, S::Enqueued),
                    (E::RetryScheduled, S::WaitingForRetry),
                    (E::BatchDecided, S::Expanding),
                    (E::Succeeded, S::Complete),
                    (E::Failed, S::Error),
                    (E::Cancelled, S::Cancelled),
                ],
            ),
            (S::WaitingForRetry, &[(E::RetryDue, S::Enqueued), (E::Cancelled, S::Cancelled)]),
            (
                S::Expanding,
                &[
                    (E::BatchSealed, S::Complete),
                    (E::Failed, S::Error),
                    (E::Cancelled, S::Cancelled),
                ],
            ),
            (S::Complete, &[]),
            (S::Error, &[(E::Reset, S::Enqueued), (E::ResolvedByHand, S::ResolvedManually)]),
            (S::Cancelled, &[(E::Reset, S::Enqueued), (E::ResolvedByHand, S::ResolvedManually)]),
            (S::ResolvedManually, &[]),
        ];
        assert_eq!(table.len(), S::ALL.len());
        for (state, applies) in table {
            for &event in E::ALL {
                let expect = applies.iter().find(|(e, _)| *e == event).map(|&(_, next)| next);
                assert_eq!(step_transition(state, event).ok(), expect, "{state} {event:?}");
            }
        }
    }

    #[test]
    fn tasks() {
        use TaskEvent as E;
        use TaskState as S;
        let ended = |pending, failed| E::StepsEnded { pending, failed };
        let events = [
            E::Started,
            ended(0, 0),
            ended(1, 1),
            ended(0, 1),
            E::Cancelled,
            E::Revived,
            E::ResolvedByHand,
        ];
        let live = [
            Some(S::InProgress),
            Some(S::Complete),
            Some(S::BlockedByFailures),
            Some(S::Error),
            Some(S::Cancelled),
            None,
            None,
        ];
        let repairable = |by_hand| [None, None, None, None, None, Some(S::InProgress), by_hand];
        for (state, expect) in [
            (S::Pending, live),
            (S::InProgress, live),
            (S::BlockedByFailures, repairable(Some(S::ResolvedManually))),
            (S::Error, repairable(Some(S::ResolvedManually))),
            (S::Cancelled, repairable(None)),
            (S::Complete, [None; 7]),
            (S::ResolvedManually, [None; 7]),
        ] {
            let got = events.map(|event| task_transition(state, event).ok());
            assert_eq!(got, expect, "{state}");
        }
    }

    #[test]
    fn ends() {
        for (active, pending, failed, expect) in [
            (1, 0, 0, None),
            (1, 5, 5, None),
            (0, 0, 0, Some(TaskState::Complete)),
            (0, 0, 1, Some(TaskState::Error)),
            (0, 1, 1, Some(TaskState::BlockedByFailures)),
            (0, 1, 0, Some(TaskState::BlockedByFailures)),
        ] {
            assert_eq!(task_end(active, pending, failed), expect, "{active} {pending} {failed}");
        }
    }
}
