//! Messages between processes, read as their receivers read them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tasker_messages::json::{self, Limits};
use tasker_messages::subject::{self, Request};
use tasker_messages::{
    AppendCursors, ClaimRequest, GetCheckpoint, GetMembers, GetResult, GetShared, GetTask,
    Heartbeat, Hint, Namespace, OutcomeReport, OutcomeVerdicts, Problem, ProcessBatchableStep,
    Refusal, ReleaseRequest, Reply, RunAnalyzer, SaveCheckpoint, SharedStep, TaskRequest, WaitTask,
    WorkItem, check_protocol,
};
use tasker_workflow::batching;

use crate::document::written;

/// The limit that `outcomes.max_result_bytes` has if nobody says otherwise.
const MAX_RESULT: usize = 1024 * 1024;

/// Reads a message of a kind. Answers with what was understood, written again.
///
/// # Errors
/// What is wrong with it.
///
/// # Panics
/// If there are no such messages.
pub fn read_message(kind: &str, payload: &[u8]) -> Result<String, Problem> {
    match kind {
        "work_item" => carrier(payload, |item: &WorkItem| {
            // The worker judges these where it needs them; one that cannot be read ends the step.
            let _range = item.cursor_config();
            let shared = item.shared.as_ref().map(|text| serde_json::from_str(text.get()));
            let _shared: Option<Result<SharedStep, _>> = shared;
            Ok(())
        }),
        "outcome_report" => carrier(payload, OutcomeReport::check),
        "checkpoint" => carrier(payload, |save: &SaveCheckpoint| save.check(MAX_RESULT)),
        "run_analyzer" => carrier(payload, |_: &RunAnalyzer| Ok(())),
        "command" => carrier(payload, |_: &ProcessBatchableStep| Ok(())),
        "hint" => carrier(payload, |_: &Hint| Ok(())),
        "verdicts" => carrier(payload, |_: &Reply<OutcomeVerdicts>| Ok(())),
        "claim" => request(payload, |_: &ClaimRequest| Ok(())),
        "release" => request(payload, |_: &ReleaseRequest| Ok(())),
        "cursors" => {
            request(payload, |page: &AppendCursors| batching::check_page(None, &page.cursors))
        }
        "members" => request(payload, |_: &GetMembers| Ok(())),
        "result" => request(payload, |_: &GetResult| Ok(())),
        "shared" => request(payload, |_: &GetShared| Ok(())),
        "resume" => request(payload, |_: &GetCheckpoint| Ok(())),
        "task_get" => request(payload, |_: &GetTask| Ok(())),
        "task_wait" => request(payload, |_: &WaitTask| Ok(())),
        "heartbeat" => request(payload, |_: &Heartbeat| Ok(())),
        _ => panic!("no message of the kind `{kind}`"),
    }
}

fn carrier<T: DeserializeOwned + Serialize>(
    payload: &[u8],
    check: impl Fn(&T) -> Result<(), Problem>,
) -> Result<String, Problem> {
    json::decode::<T>(payload).and_then(|message| check(&message).map(|()| written(&message)))
}

fn request<T: DeserializeOwned + Serialize>(
    payload: &[u8],
    check: impl Fn(&T) -> Result<(), Problem>,
) -> Result<String, Problem> {
    let message = json::read::<T>(payload, Limits::bytes(usize::MAX))?;
    check(&message).map(|()| written(&message))
}

/// What is around a message: who it is for, and whether it is understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The request that the subject stands for.
    pub request: Request,
    /// The namespace in which everything happens.
    pub namespace: Namespace,
}

/// Reads what is around a request: the version in its header, its subject and the idempotency key
/// beside its document.
///
/// # Errors
/// Why it is refused, whatever it holds.
pub fn read_envelope(
    version: Option<&str>,
    subject: &str,
    key: Option<&str>,
) -> Result<Envelope, Refusal> {
    check_protocol(version)?;
    let found = Request::ALL.iter().find_map(|&request| {
        let namespace = request.namespace(subject)?;
        Some(Envelope { request, namespace })
    });
    let none = || {
        let message = format!("no valid namespace in {subject:?}");
        Refusal::new(tasker_messages::code::INVALID_NAME, message)
    };
    let envelope = found.ok_or_else(none)?;
    let refuse = |problem| Refusal::of_document("the submission", vec![problem]);
    key.map_or(Ok(()), TaskRequest::check_key).map_err(refuse)?;
    // Whatever a subject says, no other name is made of it than that of a queue.
    if let Some((namespace, queue)) = subject::queue_of_durable(subject) {
        assert_eq!(subject::work_durable(&namespace, &queue), subject, "another durable");
    }
    Ok(envelope)
}
