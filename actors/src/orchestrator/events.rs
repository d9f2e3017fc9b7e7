//! Publishes the domain events of attempts whose ends are stored. They are made of the stored rows, never
//! of a report: what was not stored has no event, and an event that is published again says the same.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tasker_bus::Outgoing;
use tasker_messages::{DomainEvent, Namespace, Refusal, StepId, Verdict, code, subject};
use tasker_store::{AttemptKey, EndedAttempt, FinishedAttempt, StoreError};
use tasker_workflow::{AttemptEnd, EventTemplate, Violation};

use super::node::Node;

/// Attempts that are read at a time: so many contents are in memory.
const READ_AT_ONCE: usize = 64;
/// Events go to the server, and out of memory, when they are this many or have so many bytes.
const MAX_UNCONFIRMED: (usize, usize) = (1_024, 4 * 1024 * 1024);

/// How long the checks of one set of reports may take: its workers wait for the answer.
const CHECKS: Duration = Duration::from_secs(2);

/// A finished attempt whose step may have events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) key: AttemptKey,
    /// Whether it was stored before, so that only an outcome of it counts: of a failure before a retry,
    /// the row may since have come from a repair.
    again: bool,
}

/// The attempts of a set that may have events. A worker without the handler has not tried.
pub(crate) fn mark(set: &[FinishedAttempt]) -> Vec<Marked> {
    let unserved = |a: &FinishedAttempt| {
        a.ending.as_ref().is_err_and(tasker_messages::StepFailure::is_unserved)
    };
    let key = |a: &FinishedAttempt| AttemptKey {
        step_id: a.step_id,
        attempt: a.attempt,
        worker: Some(a.worker),
    };
    let marked = set.iter().filter(|a| a.has_events && !unserved(a));
    marked.map(|a| Marked { key: key(a), again: false }).collect()
}

/// Those of which something is stored. A duplicate may be the second report of what is stored, after the
/// first one was not answered.
pub(crate) fn stored(
    marked: Vec<Marked>,
    verdicts: &HashMap<(StepId, u32), Verdict>,
) -> Vec<Marked> {
    let again = |marked: Marked| match verdicts.get(&(marked.key.step_id, marked.key.attempt)) {
        Some(Verdict::Applied) => Some(marked),
        Some(Verdict::Duplicate) => Some(Marked { again: true, ..marked }),
        Some(Verdict::Stale { .. } | Verdict::Unknown) | None => None,
    };
    marked.into_iter().filter_map(again).collect()
}

/// Publishes the events of these attempts; returns when the server has them.
///
/// # Errors
/// If rows cannot be read now, or it is not known whether the server has all of them. Everything else is
/// an event that is withheld: it is counted, logged, and asked for no more.
pub(crate) async fn publish(
    node: &Node,
    namespace: &Namespace,
    attempts: &[Marked],
) -> Result<(), Refusal> {
    let mut outbox = Outbox { node, messages: Vec::new(), bytes: 0, checks: CHECKS };
    for some in attempts.chunks(READ_AT_ONCE) {
        let keys: Vec<AttemptKey> = some.iter().map(|marked| marked.key).collect();
        let found = match node.store.find_ended(namespace, &keys).await {
            Ok(found) => found,
            Err(error) if error.is_transient() => {
                tracing::error!(%error, "domain events could not be read");
                return Err(not_now());
            }
            Err(error) => vec![Err(error)],
        };
        let mut ended: Vec<EndedAttempt> = found.into_iter().filter_map(readable).collect();
        let again = |ended: &EndedAttempt| {
            let is_it =
                |m: &&Marked| m.key.step_id == ended.step_id && m.key.attempt == ended.attempt;
            some.iter().find(is_it).is_some_and(|marked| marked.again)
        };
        ended.retain(|ended| ended.end != AttemptEnd::Retried || !again(ended));
        outbox.fill(namespace, ended).await?;
    }
    outbox.send().await
}

/// What this build cannot read is not asked for again: its worker would report for ever.
fn readable(found: Result<EndedAttempt, StoreError>) -> Option<EndedAttempt> {
    let told = |error: &StoreError| {
        withhold("unreadable", 1);
        tracing::error!(%error, "domain events cannot be read");
    };
    found.inspect_err(told).ok()
}

/// Publishes the events of a step that was completed by hand. Nobody asks again, so what goes wrong is
/// said here.
pub(crate) async fn publish_completed(node: &Node, namespace: &Namespace, key: AttemptKey) {
    let marked = [Marked { key, again: false }];
    if let Err(refusal) = publish(node, namespace, &marked).await {
        withhold("unsent", 1);
        tracing::error!(
            step.id = %key.step_id, attempt = key.attempt, %refusal,
            "a step was completed by hand, and its domain events were not published"
        );
    }
}

fn not_now() -> Refusal {
    Refusal::retry(code::UNAVAILABLE, "the outcomes are stored, but not their events; report again")
}

fn withhold(reason: &'static str, events: u64) {
    metrics::counter!("tasker_events_withheld_total", "reason" => reason).increment(events);
}

/// Events on their way to the server.
struct Outbox<'a> {
    node: &'a Node,
    messages: Vec<Outgoing>,
    bytes: usize,
    /// What is left of the time for checks.
    checks: Duration,
}

impl Outbox<'_> {
    /// Takes the events of these attempts that fit their schemas.
    async fn fill(
        &mut self,
        namespace: &Namespace,
        ended: Vec<EndedAttempt>,
    ) -> Result<(), Refusal> {
        let ended = Arc::new(ended);
        let unfit = find_unfit(self.node, &ended, &mut self.checks).await?;
        for (n, attempt) in ended.iter().enumerate() {
            for (e, event) in attempt.events().into_iter().enumerate() {
                match unfit.get(&(n, e)) {
                    None => self.add(&attempt.event(namespace, event)).await?,
                    Some(violations) => refuse(namespace, attempt, event, violations),
                }
            }
        }
        Ok(())
    }

    async fn add(&mut self, event: &DomainEvent) -> Result<(), Refusal> {
        let payload = match serde_json::to_vec(event) {
            Ok(payload) => payload,
            Err(error) => {
                withhold("unreadable", 1);
                tracing::error!(%error, event.id = event.event_id, "a domain event cannot be written");
                return Ok(());
            }
        };
        self.bytes += payload.len();
        self.messages.push(Outgoing {
            subject: subject::domain_event(&event.namespace, &event.event),
            message_id: event.event_id.clone(),
            payload: payload.into(),
        });
        if self.messages.len() >= MAX_UNCONFIRMED.0 || self.bytes >= MAX_UNCONFIRMED.1 {
            self.send().await?;
        }
        Ok(())
    }

    /// Empties it.
    async fn send(&mut self) -> Result<(), Refusal> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let messages = std::mem::take(&mut self.messages);
        self.bytes = 0;
        let refused = match self.node.bus.publish_confirmed(&messages).await {
            Ok(refused) => refused,
            Err(error) => {
                tracing::error!(%error, events = messages.len(), "domain events were not confirmed");
                return Err(not_now());
            }
        };
        let published = (messages.len() - refused.len()) as u64;
        metrics::counter!("tasker_events_published_total").increment(published);
        for (n, error) in refused {
            withhold("too_large", 1);
            let event = messages.get(n).map(|message| message.message_id.as_str());
            tracing::error!(%error, event.id = event, "the bus never takes a domain event");
        }
        Ok(())
    }
}

/// By place of the attempt and of the event, what does not fit the event's schema.
type Unfit = HashMap<(usize, usize), Vec<Violation>>;

/// Checks contents against the schemas of their events, away from the threads that everything else waits
/// for. A check that panics withholds its event.
/// When the time for checks is over, what is not checked is withheld.
async fn find_unfit(
    node: &Node,
    ended: &Arc<Vec<EndedAttempt>>,
    left: &mut Duration,
) -> Result<Unfit, Refusal> {
    let has_schema = |attempt: &EndedAttempt| attempt.events().iter().any(|e| e.schema.is_some());
    let checked: Vec<usize> = (0..ended.len()).filter(|&n| has_schema(&ended[n])).collect();
    let mut unfit = Unfit::new();
    for n in checked {
        let begun = Instant::now();
        if left.is_zero() {
            unfit.extend(unchecked(&ended[n]).map(|(e, violations)| ((n, e), violations)));
            continue;
        }
        let content = match ended[n].content() {
            Some(content) => content,
            // Too large to travel along, and yet it must fit.
            None => whole_result(node, &ended[n]).await?,
        };
        let attempts = Arc::clone(ended);
        let found = tokio::task::spawn_blocking(move || check(&attempts[n], &content)).await;
        let found = found.map_err(|_| not_now())?;
        unfit.extend(found.into_iter().map(|(e, violations)| ((n, e), violations)));
        *left = left.saturating_sub(begun.elapsed());
    }
    Ok(unfit)
}

/// The events that have a schema, with why they are withheld.
fn unchecked(attempt: &EndedAttempt) -> impl Iterator<Item = (usize, Vec<Violation>)> {
    let message = "was not checked: the events reported with it have taken too long";
    let violation = Violation { path: String::new(), message: message.to_owned() };
    let checked = attempt.events().into_iter().enumerate().filter(|(_, e)| e.schema.is_some());
    checked.map(move |(e, _)| (e, vec![violation.clone()]))
}

fn check(attempt: &EndedAttempt, content: &str) -> Vec<(usize, Vec<Violation>)> {
    let check = |(e, event): (usize, &EventTemplate)| {
        // Nothing of the check is used after a panic.
        let found = catch_unwind(AssertUnwindSafe(|| event.check(attempt.end, content)));
        let violations = found.unwrap_or_else(|_| {
            let message = "could not be checked".to_owned();
            vec![Violation { path: String::new(), message }]
        });
        (e, violations)
    };
    let checked = attempt.events().into_iter().enumerate().map(check);
    checked.filter(|(_, violations)| !violations.is_empty()).collect()
}

async fn whole_result(node: &Node, attempt: &EndedAttempt) -> Result<String, Refusal> {
    match node.store.find_result(attempt.step_id, attempt.attempt).await {
        // What a repair has removed meanwhile fits no schema.
        Ok(result) => Ok(result.unwrap_or_default()),
        Err(error) => {
            tracing::error!(%error, step.id = %attempt.step_id, "a result could not be read");
            Err(not_now())
        }
    }
}

/// Withholds an event whose content does not fit.
fn refuse(
    namespace: &Namespace,
    attempt: &EndedAttempt,
    event: &EventTemplate,
    violations: &[Violation],
) {
    withhold("schema", 1);
    let first = violations.first().map(|violation| (&*violation.path, &*violation.message));
    tracing::warn!(
        namespace = %namespace, event = %event.name, task.id = %attempt.task_id,
        step.id = %attempt.step_id, attempt = attempt.attempt, violation = ?first,
        more = violations.len().saturating_sub(1),
        "a domain event does not fit its schema and is not published"
    );
}
