//! Accepts tasks. Sent by the gateway (requests, enqueued messages) and the HTTP API; emits ready
//! steps to dispatch. What is lost when it dies: submissions that were not answered (their senders
//! try again with the same key) and enqueued messages that were not acknowledged (they come back).

use std::collections::HashMap;
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_bus::AckHandle;
use tasker_messages::{Accepted, Identity, Namespace, Refusal, TaskId, TaskRequest, code};
use tasker_store::{KnownResults, NewTask, ReadyStep, RefusedMessage, StoreError, SubmitVerdict};
use tokio::sync::oneshot;

use super::Links;
use super::dispatch::DispatchMessage;
use super::gather::Gather;
use super::new_task::{check_input, load_templates, plan, template_key};
use super::node::{Node, run_detached};
use super::quota::beyond_quota;

/// Accepts tasks.
pub(crate) struct IntakeActor;

/// A request and whoever waits for its answer.
pub(crate) struct Submission {
    pub(crate) request: TaskRequest,
    pub(crate) source: SubmissionSource,
}

/// Who submitted, and how that one learns the answer.
pub(crate) enum SubmissionSource {
    /// A request that waits for its answer.
    Request(oneshot::Sender<Result<Accepted, Refusal>>),
    /// A message of the submit stream: acknowledged after COMMIT; a refused one is kept.
    Enqueued(Box<Carried>),
}

/// A message of the submit stream.
pub(crate) struct Carried {
    /// Its subject.
    pub(crate) subject: String,
    /// What it holds.
    pub(crate) payload: bytes::Bytes,
    /// The idempotency key beside the document.
    pub(crate) key: Option<String>,
    /// Where it stands in its stream: the same message comes again with the same place.
    pub(crate) place: String,
    /// How it is acknowledged.
    pub(crate) ack: AckHandle,
}

/// What the intake is told.
pub(crate) enum IntakeMessage {
    /// Accept a task.
    Submit(Box<Submission>),
    /// A set has been worked off; these steps are ready.
    Done(Vec<ReadyStep>),
}

/// What the intake keeps in mind.
pub(crate) struct IntakeState {
    node: Node,
    links: Links,
    gather: Gather<Submission>,
}

impl Actor for IntakeActor {
    type Msg = IntakeMessage;
    type State = IntakeState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        _: ActorRef<IntakeMessage>,
        (node, links): (Node, Links),
    ) -> Result<IntakeState, ActorProcessingErr> {
        let limits = &node.settings.submit;
        let gather = Gather::new(2, limits.max_per_transaction, limits.max_waiting);
        Ok(IntakeState { node, links, gather })
    }

    async fn handle(
        &self,
        myself: ActorRef<IntakeMessage>,
        message: IntakeMessage,
        state: &mut IntakeState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            IntakeMessage::Submit(submission) => {
                if let Err(refused) = state.gather.push(*submission) {
                    refuse_for_now(refused.source);
                }
            }
            IntakeMessage::Done(ready) => {
                state.gather.done();
                if !ready.is_empty() {
                    state
                        .links
                        .dispatch
                        .cast(DispatchMessage::Released(ready, KnownResults::new()));
                }
            }
        }
        while let Some(set) = state.gather.next_set() {
            let node = state.node.clone();
            let work = async move { IntakeMessage::Done(accept(&node, set).await) };
            run_detached(&myself, work, || IntakeMessage::Done(Vec::new()));
        }
        Ok(())
    }
}

fn refuse_for_now(source: SubmissionSource) {
    // An enqueued message that is not acknowledged comes back by itself.
    if let SubmissionSource::Request(answer) = source {
        let message = "too many submissions wait; try again with the same idempotency key";
        let _sender_gone = answer.send(Err(Refusal::retry(code::UNAVAILABLE, message)));
    }
}

/// Stores a set of tasks and answers each submission. Returns the steps that are ready.
async fn accept(node: &Node, mut set: Vec<Submission>) -> Vec<ReadyStep> {
    if set.len() == 1
        && let Some(submission) = set.pop()
    {
        match accept_as_remembered(node, submission).await {
            Ok(ready) => return ready,
            Err(submission) => set.push(submission),
        }
    }
    let templates = match load_templates(node, &set).await {
        Ok(templates) => templates,
        Err(error) => return unavailable(node, set, &error).await,
    };
    let mut tasks = Vec::with_capacity(set.len());
    let mut sources = Vec::with_capacity(set.len());
    for Submission { mut request, source } in set {
        // Without an answer the sender tries again, or the message comes back.
        let found = templates.get(&template_key(&request)).and_then(Option::as_ref);
        let Some(checked) = check_input(found, &mut request).await else { continue };
        match checked.and_then(|()| plan(node, found, &request)) {
            Ok(task) => {
                tasks.push(task);
                sources.push(source);
            }
            Err(refusal) => answer(node, &request.namespace, source, Err(refusal)).await,
        }
    }
    let known_since = Instant::now();
    let stored = match beyond_quota(node, &tasks).await {
        Ok(refused) => {
            (tasks, sources) = turn_away(node, tasks, sources, refused).await;
            node.store.insert_tasks(&tasks).await
        }
        Err(error) => Err(error),
    };
    match stored {
        Ok(verdicts) => conclude(node, tasks, sources, verdicts, known_since).await,
        Err(error) => {
            let set = tasks.into_iter().map(|task| task.request).zip(sources);
            let set = set.map(|(request, source)| Submission { request, source }).collect();
            unavailable(node, set, &error).await
        }
    }
}

/// Stores the task of a submission that comes alone, by what is remembered as the newest version of its
/// template: a round trip less for whoever waits. Gives the submission back if nothing is remembered, and
/// where it is for the version that there is to tell why it is refused.
async fn accept_as_remembered(
    node: &Node,
    mut submission: Submission,
) -> Result<Vec<ReadyStep>, Submission> {
    let request = &mut submission.request;
    let has_quota = node.limits.max_open_tasks(&request.namespace).is_some();
    let remembered = match request.version {
        None if !has_quota => {
            node.store.remembered_template(&request.namespace, request.name.as_str())
        }
        _ => None,
    };
    let Some(found) = remembered else { return Err(submission) };
    if !matches!(check_input(Some(&found), request).await, Some(Ok(()))) {
        return Err(submission);
    }
    let Ok(task) = plan(node, Some(&found), request) else { return Err(submission) };
    let tasks = vec![NewTask { assumes_newest: true, ..task }];
    // The key of a strict one holds the version.
    let is_strict = request.identity == Some(Identity::Strict);
    let known_since = Instant::now();
    match node.store.insert_tasks(&tasks).await {
        Ok(verdicts) if is_known(&verdicts, is_strict) => {
            let sources = vec![submission.source];
            Ok(conclude(node, tasks, sources, verdicts, known_since).await)
        }
        Ok(_) => Err(submission),
        Err(error) => Ok(unavailable(node, vec![submission], &error).await),
    }
}

/// Whether a verdict is what it would be with any version.
fn is_known(verdicts: &[SubmitVerdict], is_strict: bool) -> bool {
    match verdicts {
        [SubmitVerdict::Created] => true,
        [SubmitVerdict::Existing(_) | SubmitVerdict::Conflict(_)] => !is_strict,
        _ => false,
    }
}

/// Answers those that are refused; returns the others.
async fn turn_away(
    node: &Node,
    tasks: Vec<NewTask>,
    sources: Vec<SubmissionSource>,
    mut refused: HashMap<TaskId, Refusal>,
) -> (Vec<NewTask>, Vec<SubmissionSource>) {
    let mut others = (Vec::with_capacity(tasks.len()), Vec::with_capacity(tasks.len()));
    for (task, source) in tasks.into_iter().zip(sources) {
        match refused.remove(&task.id) {
            Some(refusal) => answer(node, &task.request.namespace, source, Err(refusal)).await,
            None => {
                others.0.push(task);
                others.1.push(source);
            }
        }
    }
    others
}

async fn conclude(
    node: &Node,
    tasks: Vec<NewTask>,
    sources: Vec<SubmissionSource>,
    verdicts: Vec<SubmitVerdict>,
    known_since: Instant,
) -> Vec<ReadyStep> {
    let mut ready = Vec::new();
    for ((task, source), verdict) in tasks.into_iter().zip(sources).zip(verdicts) {
        let result = match verdict {
            SubmitVerdict::Created => {
                ready.extend(task.ready_steps(known_since));
                metrics::counter!("tasker_submit_tasks_total", "outcome" => "created").increment(1);
                let warnings = match &source {
                    SubmissionSource::Request(_) => node.offers.warnings(&task.template),
                    SubmissionSource::Enqueued(_) => Vec::new(),
                };
                Ok(Accepted { id: task.id, created: true, warnings })
            }
            SubmitVerdict::Existing(id) => {
                Ok(Accepted { id, created: false, warnings: Vec::new() })
            }
            SubmitVerdict::Outdated => Err(Refusal::retry(
                code::UNAVAILABLE,
                "the template was registered anew meanwhile; try again",
            )),
            SubmitVerdict::Conflict(id) => Err(Refusal::new(
                code::IDEMPOTENCY_CONFLICT,
                format!(
                    "the idempotency key belongs to task {id}, which was submitted with a different request"
                ),
            )),
        };
        answer(node, &task.request.namespace, source, result).await;
    }
    ready
}

/// Tells whoever submitted. A refused message of the stream is kept before it is acknowledged; one
/// that may be accepted later is not acknowledged, so that it comes back.
async fn answer(
    node: &Node,
    namespace: &Namespace,
    source: SubmissionSource,
    result: Result<Accepted, Refusal>,
) {
    match source {
        SubmissionSource::Request(sender) => {
            let _sender_gone = sender.send(result);
        }
        SubmissionSource::Enqueued(carried) => {
            if let Err(refusal) = &result {
                if refusal.retryable {
                    return;
                }
                keep_refused(node, namespace.as_str(), &carried, refusal).await;
            } else {
                carried.ack.ack().await;
            }
        }
    }
}

/// Keeps a message that was carried but is refused, then acknowledges it; if it cannot be kept now,
/// it comes back.
pub(crate) async fn keep_refused(
    node: &Node,
    namespace: &str,
    carried: &Carried,
    refusal: &Refusal,
) {
    let Carried { subject, payload, key, place, ack } = carried;
    let message = RefusedMessage { subject, payload, key: key.as_deref(), place };
    tracing::warn!(subject, code = refusal.code, error = %refusal, "enqueued task refused; kept as a dead letter");
    match node.store.keep_dead_letter(namespace, &message, refusal).await {
        Ok(()) => ack.ack().await,
        Err(error) => {
            tracing::error!(subject, %error, "dead letter could not be kept; the message comes back")
        }
    }
}

/// Nothing was stored, or nobody knows: never "failed", always "try again with the same key".
async fn unavailable(node: &Node, set: Vec<Submission>, error: &StoreError) -> Vec<ReadyStep> {
    if let ([_, _, ..], false) = (set.as_slice(), error.is_transient()) {
        // One bad submission must not fail its neighbours: each is tried alone.
        let mut ready = Vec::new();
        for submission in set {
            ready.extend(Box::pin(accept(node, vec![submission])).await);
        }
        return ready;
    }
    tracing::error!(%error, submissions = set.len(), "submissions could not be stored");
    for Submission { request, source } in set {
        let message =
            "the database did not confirm the task; try again with the same idempotency key";
        if matches!(source, SubmissionSource::Request(_)) {
            answer(
                node,
                &request.namespace,
                source,
                Err(Refusal::retry(code::UNAVAILABLE, message)),
            )
            .await;
        }
    }
    Vec::new()
}
