//! Accepts tasks. Sent by the gateway (requests, enqueued messages) and the HTTP API; emits ready
//! steps to dispatch. What is lost when it dies: submissions that were not answered (their senders
//! try again with the same key) and enqueued messages that were not acknowledged (they come back).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_bus::AckHandle;
use tasker_messages::{
    Accepted, Identity, Namespace, Problem, Refusal, StepId, TaskId, TaskRequest, code,
};
use tasker_store::{
    KnownResults, NewTask, ReadyStep, RefusedMessage, StoreError, StoredTemplate, SubmitVerdict,
};
use tasker_workflow::check_context;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Links;
use super::dispatch::DispatchMessage;
use super::gather::Gather;
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
async fn accept(node: &Node, set: Vec<Submission>) -> Vec<ReadyStep> {
    let templates = match load_templates(node, &set).await {
        Ok(templates) => templates,
        Err(error) => return unavailable(node, set, &error).await,
    };
    let mut tasks = Vec::with_capacity(set.len());
    let mut sources = Vec::with_capacity(set.len());
    for Submission { mut request, source } in set {
        // Without an answer the sender tries again, or the message comes back.
        let Some(checked) = check_input(&templates, &mut request).await else { continue };
        match checked.and_then(|()| plan(node, &templates, &request)) {
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

type TemplateKey = (Namespace, String, Option<String>);

fn template_key(request: &TaskRequest) -> TemplateKey {
    (request.namespace.clone(), request.name.to_string(), request.version.clone())
}

async fn load_templates(
    node: &Node,
    set: &[Submission],
) -> Result<HashMap<TemplateKey, Option<StoredTemplate>>, StoreError> {
    let mut templates = HashMap::new();
    for submission in set {
        let key = template_key(&submission.request);
        if let Entry::Vacant(vacant) = templates.entry(key) {
            let (namespace, name, version) = vacant.key();
            let found = node.store.load_template(namespace, name, version.as_deref()).await?;
            vacant.insert(found);
        }
    }
    Ok(templates)
}

/// Checks the context against the template's schema, away from the threads that everything else
/// waits for. A context whose check panics is refused alone; `None` if the process ends meanwhile.
async fn check_input(
    templates: &HashMap<TemplateKey, Option<StoredTemplate>>,
    request: &mut TaskRequest,
) -> Option<Result<(), Refusal>> {
    let found = templates.get(&template_key(request)).and_then(Option::as_ref);
    let Some(schema) = found.and_then(|found| found.template.input_schema.clone()) else {
        return Some(Ok(()));
    };
    let context = std::mem::take(&mut request.context);
    let check = tokio::task::spawn_blocking(move || (check_context(&schema, &context), context));
    let (problems, context) = match check.await {
        Ok(checked) => checked,
        Err(error) if error.is_panic() => {
            let message = "the context could not be checked against its template's input_schema";
            return Some(Err(Refusal::new(code::CONTEXT_SCHEMA_VIOLATION, message)));
        }
        Err(_) => return None,
    };
    request.context = context;
    Some(match problems.is_empty() {
        true => Ok(()),
        false => Err(Refusal::of_document("the submission", problems)),
    })
}

fn plan(
    node: &Node,
    templates: &HashMap<TemplateKey, Option<StoredTemplate>>,
    request: &TaskRequest,
) -> Result<NewTask, Refusal> {
    let Some(Some(found)) = templates.get(&template_key(request)) else {
        let version =
            request.version.as_ref().map(|v| format!(" in version {v}")).unwrap_or_default();
        let message = format!(
            "there is no template `{}` in namespace `{}`{version}; register it first",
            request.name, request.namespace
        );
        let problem = Problem::new(code::TEMPLATE_NOT_FOUND, message).at("name");
        return Err(Refusal::of_document("the submission", vec![problem]));
    };
    let plan = found.template.submission();
    let most = node.settings.submit.max_static_steps;
    if plan.steps.len() > most as usize {
        let message = format!("{} steps are more than the limit of {most}", plan.steps.len());
        return Err(Refusal::new(code::TOO_LARGE, message));
    }
    // What is asked for when nobody can be asked again is the template that was found.
    let strict = request.identity == Some(Identity::Strict);
    let version =
        if strict { Some(found.template.version.as_str()) } else { request.version.as_deref() };
    let request_hash = request_hash(request, version);
    let mut request = request.clone();
    request.idempotency_key = identity_key(&request, &request_hash)?;
    Ok(NewTask {
        id: TaskId::from_uuid(Uuid::now_v7()),
        request_hash,
        request,
        template_id: found.id,
        template: Arc::clone(&found.template),
        step_ids: plan.steps.iter().map(|_| StepId::from_uuid(Uuid::now_v7())).collect(),
        plan,
    })
}

/// How the keys begin that stand for the whole request; callers cannot take one.
const STRICT: &str = "strict:";

/// The key under which a submission is the only one.
fn identity_key(request: &TaskRequest, hash: &[u8; 32]) -> Result<Option<String>, Refusal> {
    let key = request.idempotency_key.clone();
    let refuse = |code, message: String| {
        let problem = Problem::new(code, message).at("idempotency_key");
        Err(Refusal::of_document("the submission", vec![problem]))
    };
    match request.identity {
        Some(Identity::Strict) => {
            use std::fmt::Write;
            let mut strict = STRICT.to_owned();
            for byte in hash {
                // Writing to a String cannot fail.
                let _infallible = write!(strict, "{byte:02x}");
            }
            Ok(Some(strict))
        }
        Some(Identity::CallerProvided) if key.is_none() => {
            let message = "the identity `caller_provided` needs one, here or as a header";
            refuse(code::MISSING_KEY, format!("is missing: {message}"))
        }
        _ if key.as_ref().is_some_and(|key| key.starts_with(STRICT)) => {
            let message = format!("must not begin with `{STRICT}`, as keys of our own do");
            refuse(code::INVALID_VALUE, message)
        }
        Some(Identity::CallerProvided | Identity::AlwaysUnique) | None => Ok(key),
    }
}

/// Two requests with one idempotency key are the same if they ask for the same thing: template,
/// version and context; who asked and why may differ.
fn request_hash(request: &TaskRequest, version: Option<&str>) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for part in [request.name.as_str(), version.unwrap_or("")] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    // Objects are sorted by key when read, so that the order of keys does not matter.
    hash.update(request.context.to_string());
    hash.finalize().into()
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
