//! Which domain events the end of an attempt publishes.

use std::fmt;
use std::str::FromStr;

use tasker_messages::{EventName, StepFailure, StepState};

use crate::schema::{Schema, Violation};
use crate::template::StepTemplate;

/// A domain event that a step publishes.
#[derive(Debug, Clone, PartialEq)]
pub struct EventTemplate {
    /// Its name, the end of its subject; unique in the step.
    pub name: EventName,
    /// When it is published.
    pub condition: EventCondition,
    /// What the result, or the error, must fit; else the event is withheld.
    pub schema: Option<Schema>,
}

/// When a step publishes an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventCondition {
    /// The step has a result.
    Success,
    /// The step has ended in error.
    Failure,
    /// An attempt has failed, and another one follows.
    RetryableFailure,
    /// The step has ended, either way.
    Always,
}

/// How an attempt ended, as far as events are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// With the result of the step.
    Succeeded,
    /// With the error of the step.
    Failed,
    /// With a failure after which the step runs again.
    Retried,
}

impl EventCondition {
    /// Every value.
    pub const ALL: &'static [EventCondition] = &[
        EventCondition::Success,
        EventCondition::Failure,
        EventCondition::RetryableFailure,
        EventCondition::Always,
    ];

    /// The name in templates.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventCondition::Success => "success",
            EventCondition::Failure => "failure",
            EventCondition::RetryableFailure => "retryable_failure",
            EventCondition::Always => "always",
        }
    }

    /// Whether such an end publishes the event.
    pub const fn holds(self, end: AttemptEnd) -> bool {
        match self {
            EventCondition::Success => matches!(end, AttemptEnd::Succeeded),
            EventCondition::Failure => matches!(end, AttemptEnd::Failed),
            EventCondition::RetryableFailure => matches!(end, AttemptEnd::Retried),
            EventCondition::Always => matches!(end, AttemptEnd::Succeeded | AttemptEnd::Failed),
        }
    }
}

/// A condition's name that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown condition")]
pub struct UnknownCondition;

impl FromStr for EventCondition {
    type Err = UnknownCondition;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let named = |condition: &EventCondition| condition.as_str() == name;
        Self::ALL.iter().copied().find(named).ok_or(UnknownCondition)
    }
}

impl fmt::Display for EventCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl AttemptEnd {
    /// What the step became by it.
    pub const fn state(self) -> StepState {
        match self {
            AttemptEnd::Succeeded => StepState::Complete,
            AttemptEnd::Failed => StepState::Error,
            AttemptEnd::Retried => StepState::WaitingForRetry,
        }
    }
}

/// How an attempt ended, by what is stored of it: the state of the outcome that it made, or the failure
/// after which the step went on. `None` if that is nobody's event: what was cancelled or counted as done
/// has neither result nor error, and a worker without the handler has not tried.
pub fn attempt_end(
    outcome: Option<StepState>,
    failure: Option<&StepFailure>,
) -> Option<AttemptEnd> {
    match (outcome, failure) {
        (Some(StepState::Complete), _) => Some(AttemptEnd::Succeeded),
        (Some(StepState::Error), _) => Some(AttemptEnd::Failed),
        (None, Some(failure)) if !failure.is_unserved() => Some(AttemptEnd::Retried),
        _ => None,
    }
}

/// The events of a step that such an end publishes.
pub fn events_of(step: &StepTemplate, end: AttemptEnd) -> impl Iterator<Item = &EventTemplate> {
    step.events.iter().filter(move |event| event.condition.holds(end))
}

/// Most steps of the check of one event, about a tenth of a second: reports are answered after it.
const MAX_CHECK_STEPS: u64 = 1_000_000;

impl EventTemplate {
    /// What does not fit the event's schema: of the result, or of the error, as JSON text.
    pub fn check(&self, end: AttemptEnd, content: &str) -> Vec<Violation> {
        let Some(schema) = &self.schema else { return Vec::new() };
        let name = if end == AttemptEnd::Succeeded { "result" } else { "error" };
        match serde_json::from_str(content) {
            Ok(value) => schema.check_within(&value, name, MAX_CHECK_STEPS),
            Err(error) => {
                let message = format!("is no JSON: {error}");
                vec![Violation { path: name.to_owned(), message }]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::template::Template;

    fn failure(error_type: &str) -> StepFailure {
        StepFailure {
            code: "X".to_owned(),
            message: String::new(),
            retryable: true,
            error_type: error_type.to_owned(),
            retry_after_ms: None,
            context: Value::Null,
        }
    }

    fn step(events: &str) -> StepTemplate {
        let source = format!(
            "name: a\nnamespace_name: b\nversion: 1.0.0\n\
             steps: [{{name: s, handler: {{callable: x}}, publishes_events: {events}}}]"
        );
        Template::parse(source.as_bytes()).expect("valid").steps.remove(0)
    }

    #[test]
    fn each_end_has_its_events() {
        let step = step(
            "[{name: is_default}, {name: on_success, condition: success}, \
              {name: on_failure, condition: failure}, {name: on_retry, condition: retryable_failure}, \
              {name: for_good, condition: permanent_failure}, {name: in_the_end, condition: always}]",
        );
        let of = |end| events_of(&step, end).map(|e| e.name.as_str()).collect::<Vec<_>>();
        assert_eq!(of(AttemptEnd::Succeeded), ["is_default", "on_success", "in_the_end"]);
        assert_eq!(of(AttemptEnd::Failed), ["on_failure", "for_good", "in_the_end"]);
        assert_eq!(of(AttemptEnd::Retried), ["on_retry"]);
        for condition in EventCondition::ALL {
            assert_eq!(condition.as_str().parse(), Ok(*condition));
        }
    }

    #[test]
    fn what_is_stored_says_how_an_attempt_ended() {
        let (plain, unserved) = (failure(""), failure(StepFailure::UNSERVED));
        for (outcome, failure, expect) in [
            (Some(StepState::Complete), None, Some(AttemptEnd::Succeeded)),
            (Some(StepState::Error), Some(&plain), Some(AttemptEnd::Failed)),
            (Some(StepState::Error), Some(&unserved), Some(AttemptEnd::Failed)),
            (Some(StepState::Cancelled), None, None),
            (Some(StepState::ResolvedManually), None, None),
            (None, Some(&plain), Some(AttemptEnd::Retried)),
            (None, Some(&unserved), None),
            (None, None, None),
        ] {
            assert_eq!(attempt_end(outcome, failure), expect, "{outcome:?} {failure:?}");
        }
    }

    #[test]
    fn the_schema_is_that_of_result_and_error() {
        let step = step(
            "[{name: a, condition: always, \
               schema: {type: object, required: [n], properties: {n: {type: integer}}}}, {name: b}]",
        );
        let [strict, free] = &step.events[..] else { panic!("two events") };
        let paths = |end, content: &Value| {
            let found = strict.check(end, &content.to_string()).into_iter();
            found.map(|violation| violation.path).collect::<Vec<_>>()
        };
        assert!(paths(AttemptEnd::Succeeded, &json!({"n": 1})).is_empty());
        assert_eq!(paths(AttemptEnd::Succeeded, &json!({"n": "1"})), ["result.n"]);
        assert_eq!(paths(AttemptEnd::Failed, &json!({"code": "X"})), ["error"]);
        assert_eq!(strict.check(AttemptEnd::Succeeded, "{").len(), 1);
        assert!(free.check(AttemptEnd::Succeeded, "7").is_empty());
    }
}
