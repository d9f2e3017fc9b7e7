//! Repair by hand: failed steps, batches and tasks run again, or steps are settled.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde::de::DeserializeOwned;
use tasker_messages::json::{self, Limits, inspect};
use tasker_messages::{
    BatchId, Problem, Refusal, RepairStep, Repaired, Retry, StepAction, TaskId, code,
};
use tasker_store::{RepairRequest, RepairTarget};
use tasker_workflow::RepairAction;

use super::Api;
use super::extract::{Route, read_body};
use super::gate::Caller;
use super::problem::ApiError;
use super::query::id;
use super::tasks::find_step;

/// Resets, resolves or completes one failed step, named by id or name.
pub(super) async fn step(
    State(api): State<Api>,
    caller: Caller,
    Route((task, step)): Route<(String, String)>,
    body: Body,
) -> Result<Json<Repaired>, ApiError> {
    let task = caller.task(&api, &task).await?;
    let request: RepairStep = read(&api, body).await?;
    let step = find_step(&api, task, &step).await?;
    let (action, result) = match (request.action, request.result) {
        (StepAction::ResetForRetry, None) => (RepairAction::Reset, None),
        (StepAction::ResolveManually, None) => (RepairAction::Resolve, None),
        (StepAction::CompleteManually, Some(result)) => {
            let text = result.to_string();
            let limits = Limits::bytes(api.node.settings.outcomes.max_result_bytes);
            inspect(&text, limits).map_err(|problem| invalid("result", &problem.message))?;
            (RepairAction::Complete, Some(text.into()))
        }
        (StepAction::CompleteManually, None) => {
            return Err(invalid("result", "is missing: complete_manually needs one"));
        }
        (_, Some(_)) => return Err(invalid("result", "belongs to complete_manually only")),
    };
    let target = RepairTarget::Step(step, action, result);
    let RepairStep { reason, by, cascade, .. } = request;
    repair(&api, &caller, task, target, Retry { reason, by, cascade }).await
}

/// Retries all members of a batch that failed, or were cancelled with it.
pub(super) async fn batch(
    State(api): State<Api>,
    caller: Caller,
    Route((task, batch)): Route<(String, String)>,
    body: Body,
) -> Result<Json<Repaired>, ApiError> {
    let (task, batch): (_, BatchId) = (caller.task(&api, &task).await?, id(&batch)?);
    let why: Retry = read(&api, body).await?;
    repair(&api, &caller, task, RepairTarget::Batch(batch), why).await
}

/// Retries whatever of a task failed and can be retried.
pub(super) async fn task(
    State(api): State<Api>,
    caller: Caller,
    Route(task): Route<String>,
    body: Body,
) -> Result<Json<Repaired>, ApiError> {
    let task = caller.task(&api, &task).await?;
    let why: Retry = read(&api, body).await?;
    repair(&api, &caller, task, RepairTarget::Task, why).await
}

pub(super) async fn read<T: DeserializeOwned>(api: &Api, body: Body) -> Result<T, ApiError> {
    read_up_to(api.node.settings.http.max_body_bytes, body).await
}

/// The same with a limit of its own.
pub(super) async fn read_up_to<T: DeserializeOwned>(
    max_bytes: usize,
    body: Body,
) -> Result<T, ApiError> {
    let body = read_body(body, max_bytes).await?;
    json::read(&body, Limits::bytes(max_bytes)).map_err(unusable)
}

pub(super) fn invalid(field: &str, message: &str) -> ApiError {
    unusable(Problem::new(code::INVALID_VALUE, message).at(field))
}

pub(super) fn unusable(problem: Problem) -> ApiError {
    Refusal::of_document("the request", vec![problem]).into()
}

pub(super) async fn repair(
    api: &Api,
    caller: &Caller,
    task: TaskId,
    target: RepairTarget,
    why: Retry,
) -> Result<Json<Repaired>, ApiError> {
    let Retry { reason, by, cascade } = why;
    let principal = caller.audited(&reason, by)?;
    let request = RepairRequest { task, target, cascade, principal, reason };
    // A transaction must not end with the connection of whoever asked for it.
    let store = api.node.store.clone();
    let repairing = tokio::spawn(async move { store.repair(&request).await });
    let repaired = repairing.await.map_err(|error| {
        tracing::error!(%error, "a repair was lost");
        Refusal::retry(
            code::INTERNAL,
            "it is not known whether the repair was made; look at the task",
        )
    })?;
    let done = repaired??;
    let answer = done.answer(task);
    api.links.repaired(task, done);
    Ok(Json(answer))
}
