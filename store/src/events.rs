//! What domain events are made of: ended attempts as they are stored, so that an event says the same
//! whenever it is published.

use std::sync::Arc;

use serde_json::value::RawValue;
use tasker_messages::{
    DomainEvent, EventView, LeftOut, Namespace, StepFailure, StepId, StepState, StepView, TaskId,
    TemplateId, WorkerId, subject,
};
use tasker_workflow::{
    AttemptEnd, EventTemplate, StepTemplate, Template, Violation, attempt_end, events_of,
};
use uuid::Uuid;

use crate::views::{failure, parse, rfc3339};
use crate::{Store, StoreError};

/// An attempt, and who is on record for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptKey {
    /// The step.
    pub step_id: StepId,
    /// Which attempt of it.
    pub attempt: u32,
    /// The worker; `None` is a person.
    pub worker: Option<WorkerId>,
}

/// An attempt that ended in a way that may be somebody's event.
#[derive(Debug, Clone)]
pub struct EndedAttempt {
    /// How it ended.
    pub end: AttemptEnd,
    /// The step.
    pub step_id: StepId,
    /// Which attempt of it.
    pub attempt: u32,
    /// The task.
    pub task_id: TaskId,
    template: Arc<Template>,
    template_step: String,
    name: String,
    correlation_id: Option<String>,
    parent_correlation_id: Option<String>,
    ended_at: String,
    /// `None` if it is too large, or if there is none.
    result: Option<Box<RawValue>>,
    error: Option<StepFailure>,
    left_out: Option<LeftOut>,
}

impl EndedAttempt {
    /// The events that its step publishes at such an end.
    pub fn events(&self) -> Vec<&EventTemplate> {
        let step = self.template.step(&self.template_step);
        step.map_or_else(Vec::new, |(_, step)| events_of(step, self.end).collect())
    }

    /// The result or the error as JSON text; `None` if it is a result that is too large to be here.
    pub fn content(&self) -> Option<String> {
        match (&self.result, &self.error) {
            (Some(result), _) => Some(result.get().to_owned()),
            (None, Some(error)) => serde_json::to_string(error).ok(),
            (None, None) => None,
        }
    }

    /// The event as it is published.
    pub fn event(&self, namespace: &Namespace, event: &EventTemplate) -> DomainEvent {
        DomainEvent {
            event_id: subject::domain_event_id(self.step_id, self.attempt, &event.name),
            event: event.name.clone(),
            namespace: namespace.clone(),
            task_id: self.task_id,
            correlation_id: self.correlation_id.clone(),
            parent_correlation_id: self.parent_correlation_id.clone(),
            step_id: self.step_id,
            step: self.name.clone(),
            attempt: self.attempt,
            state: self.end.state(),
            ended_at: self.ended_at.clone(),
            result: self.result.clone(),
            error: self.error.clone(),
            left_out: self.left_out.clone(),
        }
    }
}

/// The events of a step's outcome, as far as they follow from it and the template.
pub(crate) async fn events_of_outcome(step: &StepTemplate, view: &StepView) -> Vec<EventView> {
    let Some(results) = &view.results else { return Vec::new() };
    let outcome = match view.state {
        StepState::Expanding => StepState::Complete,
        ended => ended,
    };
    let Some(end) = attempt_end(Some(outcome), results.error.as_ref()) else { return Vec::new() };
    let content = match (&results.result, &results.error) {
        (Some(result), _) => result.get().to_owned(),
        (None, error) => serde_json::to_string(error).unwrap_or_default(),
    };
    let (id, attempt) = (view.id, results.metadata.attempt);
    let events: Vec<EventTemplate> = events_of(step, end).cloned().collect();
    let said = |violation: Violation| format!("{}: {}", violation.path, violation.message);
    let view = move |event: EventTemplate| EventView {
        event_id: subject::domain_event_id(id, attempt, &event.name),
        violations: event.check(end, &content).into_iter().map(said).collect(),
        event: event.name,
    };
    // Others wait for this thread; a check may take long, and one that panics shows nothing.
    let views = tokio::task::spawn_blocking(move || events.into_iter().map(view).collect());
    views.await.unwrap_or_default()
}

/// A row of `ended.sql`.
struct Row {
    step_id: Uuid,
    name: String,
    task_id: Uuid,
    attempt: i32,
    template_step: String,
    template_id: Uuid,
    correlation_id: Option<String>,
    parent_correlation_id: Option<String>,
    outcome: Option<String>,
    ended_at: time::OffsetDateTime,
    result_bytes: Option<i32>,
    result: Option<String>,
    error_bytes: Option<i32>,
    error: Option<String>,
}

impl Row {
    /// `None` if such an end is nobody's event.
    fn ended(self, template: Arc<Template>) -> Result<Option<EndedAttempt>, StoreError> {
        let outcome = self.outcome.as_deref().map(|state| parse("outcome", state)).transpose()?;
        let error = failure(self.error)?;
        let Some(end) = attempt_end(outcome, error.as_ref()) else { return Ok(None) };
        let too_large = |bytes: Option<i32>| {
            let bytes = u64::try_from(bytes.unwrap_or(0)).unwrap_or(0);
            (bytes > DomainEvent::MAX_CONTENT_BYTES as u64).then_some(bytes)
        };
        let left_out = |field: &str, bytes| LeftOut { field: field.to_owned(), bytes };
        let left_out = too_large(self.result_bytes)
            .map(|bytes| left_out("result", bytes))
            .or_else(|| too_large(self.error_bytes).map(|bytes| left_out("error.context", bytes)));
        let result = self.result.map(RawValue::from_string).transpose();
        Ok(Some(EndedAttempt {
            end,
            step_id: StepId::from_uuid(self.step_id),
            attempt: self.attempt as u32,
            task_id: TaskId::from_uuid(self.task_id),
            template,
            template_step: self.template_step,
            name: self.name,
            correlation_id: self.correlation_id,
            parent_correlation_id: self.parent_correlation_id,
            ended_at: rfc3339(self.ended_at),
            result: result.map_err(|e| StoreError::stored("result", e))?,
            error,
            left_out,
        }))
    }
}

impl Store {
    /// Reads how these attempts ended, as far as it may be an event: nothing about one that did not end,
    /// or whose end somebody else is on record for. What this build cannot read is an error in its place,
    /// so that the others are told.
    pub async fn find_ended(
        &self,
        namespace: &Namespace,
        attempts: &[AttemptKey],
    ) -> Result<Vec<Result<EndedAttempt, StoreError>>, StoreError> {
        let ids: Vec<Uuid> = attempts.iter().map(|a| a.step_id.as_uuid()).collect();
        let numbers: Vec<i32> = attempts.iter().map(|a| a.attempt as i32).collect();
        let workers: Vec<Option<Uuid>> =
            attempts.iter().map(|a| a.worker.map(|worker| worker.as_uuid())).collect();
        let rows = sqlx::query_file_as!(
            Row,
            "queries/events/ended.sql",
            namespace.as_str(),
            &ids,
            &numbers,
            &workers as &[Option<Uuid>],
            DomainEvent::MAX_CONTENT_BYTES as i32,
        )
        .fetch_all(&self.hot)
        .await?;
        let mut ended = Vec::with_capacity(rows.len());
        for row in rows {
            let read = match self.template(TemplateId::from_uuid(row.template_id)).await {
                Ok(template) => row.ended(template).transpose(),
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => Some(Err(error)),
            };
            ended.extend(read);
        }
        Ok(ended)
    }

    /// The whole result of an attempt that ended its step, as JSON text, whatever its size.
    pub async fn find_result(
        &self,
        step: StepId,
        attempt: u32,
    ) -> Result<Option<String>, StoreError> {
        let result = sqlx::query_scalar!(
            "select result::text from tasker.outcomes where step_id = $1 and attempt = $2",
            step.as_uuid(),
            attempt as i32,
        )
        .fetch_optional(&self.hot)
        .await?;
        Ok(result.flatten())
    }
}
