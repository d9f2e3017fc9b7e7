//! What is done with each request of workers and programs.

use std::time::{Duration, Instant};

use tasker_bus::Incoming;
use tasker_messages::subject::Request;
use tasker_messages::{
    AttemptFinished, AttemptOutcome, CheckpointVerdict, ClaimReply, ClaimRequest,
    IDEMPOTENCY_HEADER, Namespace, OutcomeReport, OutcomeVerdicts, Refusal, ReleaseReply,
    ReleaseRequest, SaveCheckpoint, TaskRequest, Verdict, code,
};
use tasker_store::{ClaimTerms, FinishedAttempt};
use tokio::sync::oneshot;

use crate::orchestrator::checkpoints::{CheckpointsMessage, Save};
use crate::orchestrator::dispatch::DispatchMessage;
use crate::orchestrator::heartbeats::vanished_within;
use crate::orchestrator::node::Node;
use crate::orchestrator::outcomes::{OutcomesMessage, Report};
use crate::orchestrator::{Links, reads};

/// Answers one request.
pub(super) async fn route(node: &Node, links: &Links, kind: Request, incoming: Incoming) {
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
pub(super) fn request(
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
    let mut takes = if node.limits.hands_over(namespace) { report.takes } else { 0 };
    let (schemas, events) = (!report.tells_schemas, !report.tells_events);
    let mut takes_next = |finished: &AttemptFinished| {
        let takes_next = takes > 0 && finished.may_bring_next();
        takes -= u32::from(takes_next);
        takes_next
    };
    let attempts = report.outcomes.into_iter().map(|finished| FinishedAttempt {
        takes_next: takes_next(&finished),
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
    let terms = ClaimTerms {
        lease_ms: node.settings.worker.lease_ms,
        vanished: vanished_within(&node.settings),
    };
    let until = request.until_ms.and_then(|until_ms| moment(node, until_ms));
    let granted =
        node.store.claim_steps(namespace, request.worker, &request.claims, &terms, until).await;
    let granted = granted.map_err(|e| reads::ReadError::from(e).into_refusal())?;
    if granted.is_late {
        metrics::counter!("tasker_gateway_late_claims_total").increment(1);
        return Err(Refusal::retry(code::UNAVAILABLE, "the claim came too late; claim again"));
    }
    if !granted.poisoned.is_empty() {
        end_poisoned(links, namespace, request.worker, &granted.poisoned).await?;
    }
    Ok(ClaimReply { verdicts: granted.verdicts })
}

/// When the server's clock shows this, by the clock of this process; `None` if that is not known.
fn moment(node: &Node, unix_ms: i64) -> Option<Instant> {
    let now = Instant::now();
    let left = unix_ms.saturating_sub(node.bus.server_unix_nanos(now)? / 1_000_000);
    now.checked_add(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
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
