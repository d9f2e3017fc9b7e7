//! Answers to running steps and to programs: plain reads, no actor needed.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tasker_bus::Incoming;
use tasker_messages::json::{self, Limits};
use tasker_messages::{
    AppendCursors, CursorConfig, CursorsAppended, GetCheckpoint, GetMembers, GetResult, GetShared,
    GetTask, MembersPage, Namespace, Problem, Refusal, SharedStep, StoredCheckpoint, StoredResult,
    TaskView, WaitTask, code, subject,
};
use tasker_store::{KnownResults, NewPage, StoreError};
use tasker_workflow::batching;

use super::Links;
use super::node::Node;

/// Why a read was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The request cannot be answered.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReadError {
    /// What the caller is told; the cause goes to the log, once, here.
    pub fn into_refusal(self) -> Refusal {
        match self {
            ReadError::Refused(refusal) => refusal,
            ReadError::Store(error) if error.is_transient() => {
                tracing::warn!(%error, "a read was not answered");
                Refusal::retry(code::UNAVAILABLE, "the database did not answer; try again")
            }
            ReadError::Store(error) => {
                tracing::error!(%error, "a read failed");
                Refusal::retry(
                    code::INTERNAL,
                    "the request could not be answered; the log has the cause",
                )
            }
        }
    }
}

/// Longest wait of `tasker.task.wait`.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Largest page of appended cursors.
const MAX_PAGE_CURSORS: usize = 10_000;

/// Reads a request's document. Its size is bounded by the bus.
pub(crate) fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Refusal> {
    json::read(payload, Limits::bytes(usize::MAX)).map_err(refuse)
}

/// The same of a document with values that are judged one by one where they are stored.
pub(crate) fn parse_carrier<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Refusal> {
    json::decode(payload).map_err(refuse)
}

pub(crate) fn refuse(problem: Problem) -> Refusal {
    Refusal::of_document("the request", vec![problem])
}

/// Answers one request of a kind that only reads (or appends cursors).
pub(crate) async fn answer(
    node: &Node,
    links: &Links,
    kind: subject::Request,
    namespace: &Namespace,
    incoming: &Incoming,
) {
    use subject::Request;
    let payload = &incoming.payload;
    match kind {
        Request::TaskGet => reply(incoming, get_task(node, namespace, payload).await).await,
        Request::TaskWait => {
            reply(incoming, wait_task(node, links, namespace, payload).await).await
        }
        Request::Shared => reply(incoming, shared(node, namespace, payload).await).await,
        Request::Result => reply(incoming, result(node, namespace, payload).await).await,
        Request::Members => reply(incoming, members(node, namespace, payload).await).await,
        Request::AppendCursors => reply(incoming, append(node, namespace, payload).await).await,
        Request::GetCheckpoint => reply(incoming, resume(node, namespace, payload).await).await,
        // These have actors of their own; the gateway does not send them here.
        Request::Submit
        | Request::Outcome
        | Request::Claim
        | Request::Release
        | Request::SaveCheckpoint => {}
    }
}

async fn reply<T: Serialize>(incoming: &Incoming, result: Result<T, ReadError>) {
    incoming.answer(result.map_err(ReadError::into_refusal)).await;
}

async fn get_task(node: &Node, ns: &Namespace, payload: &[u8]) -> Result<TaskView, ReadError> {
    let request: GetTask = parse(payload)?;
    let view = node.store.view_task(request.id, Some(ns)).await?;
    Ok(view.ok_or_else(|| no_task(request.id))?)
}

fn no_task(id: impl std::fmt::Display) -> Refusal {
    Refusal::new(code::TASK_NOT_FOUND, format!("there is no task {id} in this namespace"))
}

async fn wait_task(
    node: &Node,
    links: &Links,
    ns: &Namespace,
    payload: &[u8],
) -> Result<TaskView, ReadError> {
    let request: WaitTask = parse(payload)?;
    let at_most = Duration::from_millis(u64::from(request.timeout_ms)).min(MAX_WAIT);
    let known = node.store.has_ended(request.id, ns);
    // The waiter is there before the task is looked at, so that its end cannot slip between.
    let waiting = links.wait_for_end(request.id, at_most);
    tokio::pin!(waiting);
    let looked = tokio::select! {
        biased;
        ended = &mut waiting => Some(ended),
        known = known => known?.ok_or_else(|| no_task(request.id))?.then_some(true),
    };
    let ended = match looked {
        Some(ended) => ended,
        None => waiting.await,
    };
    let view = match ended {
        true => node.store.view_ended_task(request.id, Some(ns)).await?,
        false => node.store.view_task(request.id, Some(ns)).await?,
    };
    Ok(view.ok_or_else(|| no_task(request.id))?)
}

async fn shared(node: &Node, ns: &Namespace, payload: &[u8]) -> Result<SharedStep, ReadError> {
    let request: GetShared = parse(payload)?;
    let key = (request.task_id, request.template_step);
    let mut found =
        node.store.load_shared(ns, std::slice::from_ref(&key), &KnownResults::new()).await?;
    let none = || {
        let message = format!("there is no step `{}` in task {} of this namespace", key.1, key.0);
        Refusal::new(code::TASK_NOT_FOUND, message)
    };
    Ok(found.remove(&key).ok_or_else(none)?)
}

async fn result(node: &Node, ns: &Namespace, payload: &[u8]) -> Result<StoredResult, ReadError> {
    let request: GetResult = parse(payload)?;
    let none = || no_task(format_args!("{} with a step `{}`", request.task_id, request.name));
    Ok(node.store.load_result(ns, &request).await?.ok_or_else(none)?)
}

async fn members(node: &Node, ns: &Namespace, payload: &[u8]) -> Result<MembersPage, ReadError> {
    let request: GetMembers = parse(payload)?;
    let limits = &node.settings.batches;
    let page =
        node.store.members_page(ns, &request, limits.page_members, limits.page_bytes).await?;
    let none = || {
        let message = format!("there is no batch {} in this namespace", request.batch_id);
        Refusal::new(code::TASK_NOT_FOUND, message)
    };
    Ok(page.ok_or_else(none)?)
}

async fn resume(
    node: &Node,
    ns: &Namespace,
    payload: &[u8],
) -> Result<StoredCheckpoint, ReadError> {
    let request: GetCheckpoint = parse(payload)?;
    let checkpoint = node.store.load_checkpoint(ns, request.step_id).await?;
    Ok(StoredCheckpoint { checkpoint })
}

/// A page as it came: each cursor also as the text that is stored.
#[derive(serde::Deserialize)]
struct RawPage {
    cursors: Box<RawValue>,
}

async fn append(node: &Node, ns: &Namespace, payload: &[u8]) -> Result<CursorsAppended, ReadError> {
    let request: AppendCursors = parse(payload)?;
    let raw: RawPage = parse_carrier(payload)?;
    if request.cursors.is_empty() || request.cursors.len() > MAX_PAGE_CURSORS {
        let message =
            format!("a page has 1 to {MAX_PAGE_CURSORS} cursors, not {}", request.cursors.len());
        return Err(Refusal::new(code::BATCH_COUNT_MISMATCH, message).into());
    }
    let previous =
        node.store.previous_page(ns, request.step_id, request.attempt, request.page).await?;
    let next = previous.as_ref().map_or(0, |p| p.page + 1);
    if request.page != next {
        let message =
            format!("page {} does not follow page {} ", request.page, i64::from(next) - 1);
        return Err(Refusal::new(code::BATCH_COUNT_MISMATCH, message.trim_end()).into());
    }
    let before = previous.as_ref().map(|p| (p.last_batch_id.as_str(), p.last_end));
    batching::check_page(before, &request.cursors)
        .map_err(|problem: Problem| Refusal::of_document("the page of cursors", vec![problem]))?;
    let last = request.cursors.last();
    let page = NewPage {
        step_id: request.step_id,
        attempt: request.attempt,
        page: request.page,
        cursors_json: raw.cursors.get().to_owned(),
        count: request.cursors.len() as u32,
        last_batch_id: last.map(|c: &CursorConfig| c.batch_id.clone()).unwrap_or_default(),
        last_end: last.and_then(|c| c.end_cursor.as_i64()),
    };
    Ok(CursorsAppended { current: node.store.append_page(ns, &page).await? })
}
