//! Takes requests from the bus and hands them on. Owns the subscriptions and the pulls of the
//! control and submit streams. What is lost when it dies: requests that were not answered; their
//! senders try again. Deliveries come back.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_bus::{Bus, Delivery, Incoming, PullEvent, PullOptions, Puller, ResetReason};
use tasker_messages::json;
use tasker_messages::subject::{self, Request};
use tasker_messages::{
    AttemptOutcome, CheckpointVerdict, ClaimReply, ClaimRequest, IDEMPOTENCY_HEADER, Identity,
    InvalidName, Namespace, OutcomeReport, OutcomeVerdicts, ProcessBatchableStep, Refusal,
    ReleaseReply, ReleaseRequest, SaveCheckpoint, TaskRequest, Verdict, code,
};
use tasker_store::FinishedAttempt;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::batch_processing::{BatchProcessingMessage, Expansion};
use super::checkpoints::{CheckpointsMessage, Save};
use super::dispatch::DispatchMessage;
use super::finalizer::FinalizerMessage;
use super::intake::{Carried, IntakeMessage, Submission, SubmissionSource, keep_refused};
use super::node::Node;
use super::outcomes::{OutcomesMessage, Report};
use super::{Links, reads};

/// Takes requests from the bus.
pub(crate) struct GatewayActor;

/// What the gateway is told.
pub(crate) enum GatewayMessage {
    /// See whether the listeners still run.
    Check,
}

/// What the gateway keeps in mind: its listeners end with it.
pub(crate) struct GatewayState {
    listeners: JoinSet<()>,
}

/// Requests of one kind that are worked on at a time; more of them wait in the subscription.
const MAX_REQUESTS: usize = 256;
/// Waiting requests are cheap, and many programs may wait.
const MAX_WAITING_REQUESTS: usize = 10_000;
/// Deliveries of the control and submit streams that are held at a time.
const MAX_DELIVERIES: u32 = 512;

impl Actor for GatewayActor {
    type Msg = GatewayMessage;
    type State = GatewayState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<GatewayMessage>,
        (node, links): (Node, Links),
    ) -> Result<GatewayState, ActorProcessingErr> {
        let mut listeners = JoinSet::new();
        let group = Some(subject::ORCHESTRATORS);
        for &kind in Request::ALL {
            listen(&mut listeners, &node, &links, kind, &kind.wildcard(), group).await?;
        }
        let mine = subject::outcome_at_wildcard(node.id);
        listen(&mut listeners, &node, &links, Request::Outcome, &mine, None).await?;
        listen_to_events(&mut listeners, &node, &links).await?;
        listen_to_queue_lists(&mut listeners, &node.bus).await?;
        let (n, l) = (node.clone(), links.clone());
        let commands =
            node.bus.pull(subject::CONTROL_STREAM, subject::BATCH_DURABLE, PullOptions::default());
        listeners.spawn(pull(commands, move |delivery| take_command(&l, delivery)));
        let submitted =
            node.bus.pull(subject::SUBMIT_STREAM, subject::SUBMIT_DURABLE, PullOptions::default());
        listeners.spawn(pull(submitted, move |delivery| take_enqueued(&n, &links, delivery)));
        myself.send_interval(Duration::from_secs(1), || GatewayMessage::Check);
        Ok(GatewayState { listeners })
    }

    async fn handle(
        &self,
        _: ActorRef<GatewayMessage>,
        GatewayMessage::Check: GatewayMessage,
        state: &mut GatewayState,
    ) -> Result<(), ActorProcessingErr> {
        match state.listeners.try_join_next() {
            None => Ok(()),
            Some(Ok(())) => Err("a subscription has ended".into()),
            Some(Err(error)) => Err(format!("a listener has died: {error}").into()),
        }
    }
}

/// Subscribes to one kind of request and answers each in a task of its own.
async fn listen(
    listeners: &mut JoinSet<()>,
    node: &Node,
    links: &Links,
    kind: Request,
    subject: &str,
    group: Option<&str>,
) -> Result<(), ActorProcessingErr> {
    let mut subscription = node.bus.subscribe(subject, group).await?;
    let (node, links) = (node.clone(), links.clone());
    let most = if kind == Request::TaskWait { MAX_WAITING_REQUESTS } else { MAX_REQUESTS };
    let permits = Arc::new(Semaphore::new(most));
    listeners.spawn(async move {
        while let Some(incoming) = subscription.next().await {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let (node, links) = (node.clone(), links.clone());
            tokio::spawn(async move {
                route(&node, &links, kind, incoming).await;
                drop(permit);
            });
        }
    });
    Ok(())
}

async fn route(node: &Node, links: &Links, kind: Request, incoming: Incoming) {
    let namespace = kind.namespace(&incoming.subject).ok_or_else(|| {
        Refusal::new(code::INVALID_NAME, format!("no valid namespace in `{}`", incoming.subject))
    });
    let namespace = match incoming.protocol_ok().and(namespace) {
        Ok(namespace) => namespace,
        Err(refusal) => return incoming.answer(Err::<(), _>(refusal)).await,
    };
    match kind {
        Request::Submit => {
            let result = submit(links, &namespace, &incoming).await;
            incoming.answer(result).await;
        }
        Request::Outcome => {
            let result = report(node, links, &namespace, &incoming).await;
            incoming.answer(result).await;
        }
        Request::Claim => {
            let result = claim(node, links, &namespace, &incoming).await;
            incoming.answer(result).await;
        }
        Request::Release => {
            let result = release(node, links, &namespace, &incoming).await;
            incoming.answer(result).await;
        }
        Request::SaveCheckpoint => {
            let result = save_checkpoint(links, &namespace, &incoming).await;
            incoming.answer(result).await;
        }
        _ => reads::answer(node, links, kind, &namespace, &incoming).await,
    }
}

async fn submit(
    links: &Links,
    namespace: &Namespace,
    incoming: &Incoming,
) -> Result<tasker_messages::Accepted, Refusal> {
    let key = incoming.header(IDEMPOTENCY_HEADER).map(str::to_owned);
    links.submit(request(namespace, &incoming.payload, key)?).await
}

/// Reads a request; the key of the header is used unless the document has one.
fn request(
    namespace: &Namespace,
    payload: &[u8],
    key: Option<String>,
) -> Result<TaskRequest, Refusal> {
    let mut request = TaskRequest::parse(payload, Some(namespace))
        .map_err(|problems| Refusal::of_document("the submission", problems))?;
    key.as_deref()
        .map_or(Ok(()), TaskRequest::check_key)
        .map_err(|problem| Refusal::of_document("the submission", vec![problem]))?;
    request.idempotency_key = request.idempotency_key.or(key);
    Ok(request)
}

async fn report(
    node: &Node,
    links: &Links,
    namespace: &Namespace,
    incoming: &Incoming,
) -> Result<OutcomeVerdicts, Refusal> {
    let report: OutcomeReport = reads::parse_carrier(&incoming.payload)?;
    report.check().map_err(reads::refuse)?;
    let worker = report.worker;
    let takes = if node.limits.hands_over(namespace) { report.takes as usize } else { 0 };
    let (schemas, events) = (!report.tells_schemas, !report.tells_events);
    let attempts = report.outcomes.into_iter().enumerate().map(|(n, finished)| FinishedAttempt {
        takes_next: n < takes,
        step_id: finished.step_id,
        attempt: finished.attempt,
        dispatch_seq: finished.dispatch_seq,
        kind: finished.kind,
        has_schema: finished.has_schema || schemas,
        has_events: finished.has_events || events,
        worker,
        execution_ms: finished.execution_ms,
        ending: match finished.outcome {
            AttemptOutcome::Succeeded(result) => Ok(Box::<str>::from(result)),
            AttemptOutcome::Failed(failure) => Err(failure),
        },
    });
    let attempts: Vec<FinishedAttempt> = attempts.collect();
    let (answer, answered) = oneshot::channel();
    let report = Report { namespace: namespace.clone(), attempts, answer };
    links.outcomes.cast(OutcomesMessage::Report(Box::new(report)));
    answered.await.unwrap_or_else(|_| {
        Err(Refusal::retry(
            code::UNAVAILABLE,
            "it is not known whether the outcomes were stored; report again",
        ))
    })
}

async fn claim(
    node: &Node,
    links: &Links,
    namespace: &Namespace,
    incoming: &Incoming,
) -> Result<ClaimReply, Refusal> {
    let request: ClaimRequest = reads::parse(&incoming.payload)?;
    let lease_ms = node.settings.worker.lease_ms;
    let granted =
        node.store.claim_steps(namespace, request.worker, &request.claims, lease_ms).await;
    let granted = granted.map_err(|e| reads::ReadError::from(e).into_refusal())?;
    if !granted.poisoned.is_empty() {
        end_poisoned(links, namespace, request.worker, &granted.poisoned).await?;
    }
    Ok(ClaimReply { verdicts: granted.verdicts })
}

async fn save_checkpoint(
    links: &Links,
    namespace: &Namespace,
    incoming: &Incoming,
) -> Result<CheckpointVerdict, Refusal> {
    let request: SaveCheckpoint = reads::parse_carrier(&incoming.payload)?;
    let (answer, answered) = oneshot::channel();
    let save = Save { namespace: namespace.clone(), request, answer };
    links.checkpoints.cast(CheckpointsMessage::Save(Box::new(save)));
    answered.await.unwrap_or_else(|_| {
        let message = "it is not known whether the checkpoint was stored; send it again";
        Err(Refusal::retry(code::UNAVAILABLE, message))
    })
}

/// Ends steps whose workers vanished too often, as if they had reported it.
async fn end_poisoned(
    links: &Links,
    namespace: &Namespace,
    worker: tasker_messages::WorkerId,
    poisoned: &[tasker_store::Reclaim],
) -> Result<(), Refusal> {
    let attempts = poisoned.iter().map(|reclaim| FinishedAttempt {
        step_id: reclaim.step_id,
        takes_next: false,
        attempt: reclaim.attempt,
        dispatch_seq: 0,
        kind: reclaim.kind,
        has_schema: false,
        has_events: true,
        worker,
        execution_ms: 0,
        ending: Err(tasker_messages::StepFailure {
            code: code::STEP_POISONED.to_owned(),
            message: format!(
                "{} worker(s) vanished while they ran this step, as many as its retry budget allows",
                reclaim.tries
            ),
            retryable: false,
            error_type: "poison".to_owned(),
            retry_after_ms: None,
            context: serde_json::Value::Null,
        }),
    });
    let (answer, answered) = oneshot::channel();
    let report = Report { namespace: namespace.clone(), attempts: attempts.collect(), answer };
    links.outcomes.cast(OutcomesMessage::Report(Box::new(report)));
    let unknown =
        || Err(Refusal::retry(code::UNAVAILABLE, "the claim was not decided; claim again"));
    let OutcomeVerdicts { verdicts, .. } = answered.await.unwrap_or_else(|_| unknown())?;
    // A step that moved on meanwhile was not poisoned, and its message is still needed.
    let ended = |verdict: &Verdict| matches!(verdict, Verdict::Applied | Verdict::Duplicate);
    if verdicts.iter().all(ended) { Ok(()) } else { unknown().map(|_| ()) }
}

async fn release(
    node: &Node,
    links: &Links,
    namespace: &Namespace,
    incoming: &Incoming,
) -> Result<ReleaseReply, Refusal> {
    let request: ReleaseRequest = reads::parse(&incoming.payload)?;
    let released = node.store.release_steps(namespace, request.worker, &request.steps).await;
    let released = released.map_err(|e| reads::ReadError::from(e).into_refusal())?;
    if !released.is_empty() {
        links.dispatch.cast(DispatchMessage::Ready(released.clone()));
    }
    Ok(ReleaseReply { released: released.len() as u32, steps: released })
}

/// Wakes waiters when any node announces the end of a task.
async fn listen_to_events(
    listeners: &mut JoinSet<()>,
    node: &Node,
    links: &Links,
) -> Result<(), ActorProcessingErr> {
    let mut events = node.bus.subscribe(subject::TASK_EVENTS, None).await?;
    let links = links.clone();
    listeners.spawn(async move {
        while let Some(event) = events.next().await {
            if let Some(Ok(id)) = event.subject.rsplit('.').next().map(str::parse) {
                links.finalizer.cast(FinalizerMessage::Announced(id));
            }
        }
    });
    Ok(())
}

/// Tells workers which queues exist.
async fn listen_to_queue_lists(
    listeners: &mut JoinSet<()>,
    bus: &Bus,
) -> Result<(), ActorProcessingErr> {
    let group = Some(subject::ORCHESTRATORS);
    let mut requests = bus.subscribe(subject::QUEUES_LIST, group).await?;
    let bus = bus.clone();
    listeners.spawn(async move {
        while let Some(request) = requests.next().await {
            let queues = bus.work_durables().await.map(|queues| tasker_messages::QueueList {
                queues: queues
                    .into_iter()
                    .map(|(namespace, queue)| tasker_messages::QueueRef { namespace, queue })
                    .collect(),
            });
            let answer = queues.map_err(|error| {
                Refusal::retry(
                    code::UNAVAILABLE,
                    format!("the bus did not list its queues: {error}"),
                )
            });
            request.answer(answer).await;
        }
    });
    Ok(())
}

/// Pulls a stream for ever, with a bounded number of deliveries asked for.
async fn pull(mut puller: Puller, mut take: impl FnMut(Delivery) + Send) {
    const BACK_OFF: Duration = Duration::from_millis(250);
    loop {
        let room = MAX_DELIVERIES - puller.credit().min(MAX_DELIVERIES);
        if room > MAX_DELIVERIES / 2
            && let Err(error) = puller.request(room).await
        {
            tracing::warn!(%error, durable = puller.durable(), "a stream is not pulled");
            tokio::time::sleep(BACK_OFF).await;
            continue;
        }
        match puller.next().await {
            PullEvent::Message(delivery) => take(delivery),
            PullEvent::CreditReturned(_) | PullEvent::Reset(ResetReason::Reconnected) => {}
            PullEvent::Reset(_) => tokio::time::sleep(BACK_OFF).await,
        }
    }
}

/// Acknowledges in passing: the message says nothing that the rows do not say.
fn dismiss(delivery: Delivery) {
    tokio::spawn(async move { delivery.handle.ack().await });
}

fn take_command(links: &Links, delivery: Delivery) {
    match json::decode::<ProcessBatchableStep>(&delivery.payload) {
        Ok(command) => {
            let expansion = Expansion { step: command.step, ack: Some(delivery.handle) };
            links.batch_processing.cast(BatchProcessingMessage::Expand(expansion));
        }
        Err(error) => {
            // The rows say what is to be expanded; a message that cannot be read says nothing.
            tracing::error!(%error, sequence = delivery.stream_sequence, "a command cannot be read");
            dismiss(delivery);
        }
    }
}

/// Takes a task that was enqueued without waiting: the idempotency key is the header's, else the
/// message id, else where the message stands in the stream.
fn take_enqueued(node: &Node, links: &Links, delivery: Delivery) {
    let subject = delivery.subject().to_owned();
    let ack = delivery.handle.clone();
    let key = delivery
        .header(IDEMPOTENCY_HEADER)
        .or_else(|| delivery.header("Nats-Msg-Id"))
        .map(str::to_owned);
    // Not for a producer who said that it provides one: it forgot.
    let place = format!("enqueued:{}:{}", delivery.published_unix_nanos, delivery.stream_sequence);
    let token = subject.strip_prefix("tasker.enqueue.").unwrap_or_default().to_owned();
    let invalid = |e: InvalidName| Refusal::new(code::INVALID_NAME, e.to_string());
    let accepted = delivery
        .protocol_ok()
        .and_then(|()| Namespace::new(&token).map_err(invalid))
        .and_then(|namespace| request(&namespace, &delivery.payload, key.clone()));
    let payload = delivery.payload.clone();
    let carried = Box::new(Carried { subject, payload, key, place, ack });
    match accepted {
        Ok(mut request) => {
            if request.identity != Some(Identity::CallerProvided) {
                request.idempotency_key.get_or_insert_with(|| carried.place.clone());
            }
            let source = SubmissionSource::Enqueued(carried);
            links.intake.cast(IntakeMessage::Submit(Box::new(Submission { request, source })));
        }
        Err(refusal) => {
            let node = node.clone();
            tokio::spawn(async move { keep_refused(&node, &token, &carried, &refusal).await });
        }
    }
}
