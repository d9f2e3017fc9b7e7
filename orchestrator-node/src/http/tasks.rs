//! `/v1/tasks`.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tasker_messages::{
    Accepted, Namespace, Problem, Refusal, StepHistory, StepId, StepPage, TaskId, TaskList,
    TaskRequest, TaskState, TaskSummary, TaskView, Why, code,
};
use tasker_store::{Cancelled, FinishedTask};

use super::Api;
use super::extract::{Route, read_body};
use super::gate::Caller;
use super::problem::ApiError;
use super::query::Params;

pub(super) async fn submit(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    let body = read_body(body, api.node.settings.http.max_body_bytes).await?;
    expect_json(&headers)?;
    let mut request = TaskRequest::parse(&body, None)
        .map_err(|problems| Refusal::of_document("the submission", problems))?;
    caller.scope().check(request.namespace.as_str())?;
    let key = idempotency_key(&headers)?;
    request.idempotency_key = match (request.idempotency_key, key) {
        (Some(a), Some(b)) if a != b => {
            let problem = Problem::new(
                code::CONFLICTING_KEYS,
                "the header Idempotency-Key and the document name different keys",
            );
            let problem = problem.at("idempotency_key");
            return Err(Refusal::of_document("the submission", vec![problem]).into());
        }
        (a, b) => a.or(b),
    };
    let accepted = api.links.submit(request).await?;
    let status = if accepted.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(accepted)))
}

fn expect_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::media_type("application/json"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    const MOST: usize = TaskRequest::MAX_KEY_BYTES;
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(key) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(ApiError::bad_request("Idempotency-Key", "given twice"));
    }
    match key.to_str() {
        Ok(key) if (1..=MOST).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => {
            let message = format!("must be 1 to {MOST} visible ASCII characters");
            Err(ApiError::bad_request("Idempotency-Key", message))
        }
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: RawQuery,
) -> Result<Json<TaskList>, ApiError> {
    let params = Params::read(query, &["namespace", "state", "limit", "after"])?;
    let scope = caller.narrowed(params.get::<Namespace>("namespace")?)?;
    let state: Option<TaskState> = params.get("state")?;
    let after: Option<TaskId> = params.get("after")?;
    let limit = params.limit()?;
    Ok(Json(api.node.store.list_tasks(&scope, state, after, limit).await?))
}

pub(super) fn no_task(id: TaskId) -> ApiError {
    Refusal::new(code::TASK_NOT_FOUND, format!("there is no task {id}")).into()
}

/// Shows a task; with `wait`, once it has ended or the time is up.
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Route(path): Route<String>,
    query: RawQuery,
) -> Result<Json<TaskView>, ApiError> {
    let task = caller.task(&api, &path).await?;
    let params = Params::read(query, &["wait"])?;
    let ended = match params.get::<u64>("wait")? {
        Some(seconds) => {
            let most = api.node.settings.http.max_wait_seconds;
            wait(&api, task, Duration::from_secs(seconds.min(most))).await?
        }
        None => false,
    };
    let view = match ended {
        true => api.node.store.view_ended_task(task, None).await?,
        false => api.node.store.view_task(task, None).await?,
    };
    Ok(Json(view.ok_or_else(|| no_task(task))?))
}

/// Waits until a task has ended, and says whether it has. The waiter is there before the task is looked at,
/// so that its end cannot slip between.
async fn wait(api: &Api, task: TaskId, at_most: Duration) -> Result<bool, ApiError> {
    let waiting = api.links.wait_for_end(task, at_most);
    tokio::pin!(waiting);
    let summary = tokio::select! {
        biased;
        ended = &mut waiting => return Ok(ended),
        summary = api.node.store.summarize_task(task) => summary?,
    };
    let summary = summary.ok_or_else(|| no_task(task))?;
    Ok(summary.state.is_terminal() || waiting.await)
}

pub(super) async fn summary(
    State(api): State<Api>,
    caller: Caller,
    Route(path): Route<String>,
) -> Result<Json<TaskSummary>, ApiError> {
    let task = caller.task(&api, &path).await?;
    let summary = api.node.store.summarize_task(task).await?;
    Ok(Json(summary.ok_or_else(|| no_task(task))?))
}

/// Why a task is where it is.
pub(super) async fn why(
    State(api): State<Api>,
    caller: Caller,
    Route(path): Route<String>,
) -> Result<Json<Why>, ApiError> {
    let task = caller.task(&api, &path).await?;
    let why = api.node.store.explain_task(task, api.node.workers_live_within()).await?;
    Ok(Json(why.ok_or_else(|| no_task(task))?))
}

/// One step, named by id or name, with the attempts that did not end it.
pub(super) async fn step(
    State(api): State<Api>,
    caller: Caller,
    Route((task, step)): Route<(String, String)>,
) -> Result<Json<StepHistory>, ApiError> {
    let task = caller.task(&api, &task).await?;
    let found = find_step(&api, task, &step).await?;
    let history = api.node.store.step_history(task, found).await?;
    Ok(Json(history.ok_or_else(|| no_step(task, &step))?))
}

/// The id of a step that is named by id or name.
pub(super) async fn find_step(api: &Api, task: TaskId, step: &str) -> Result<StepId, ApiError> {
    match step.parse() {
        Ok(id) => Ok(id),
        // Nothing in the database is named so, and it would refuse to look.
        Err(_) if step.contains('\0') => Err(no_step(task, step)),
        Err(_) => {
            let found = api.node.store.find_step(task, step).await?;
            found.ok_or_else(|| no_step(task, step))
        }
    }
}

fn no_step(task: TaskId, step: &str) -> ApiError {
    let message = format!("there is no step `{step}` in task {task}");
    Refusal::new(code::STEP_NOT_FOUND, message).into()
}

pub(super) async fn steps(
    State(api): State<Api>,
    caller: Caller,
    Route(path): Route<String>,
    query: RawQuery,
) -> Result<Json<StepPage>, ApiError> {
    let task = caller.task(&api, &path).await?;
    let params = Params::read(query, &["after", "limit"])?;
    let page = api.node.store.list_steps(task, params.get("after")?, params.limit()?).await?;
    Ok(Json(page.ok_or_else(|| no_task(task))?))
}

pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Route(path): Route<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let task = caller.task(&api, &path).await?;
    // A transaction must not end with the connection of whoever asked for it.
    let (store, by) = (api.node.store.clone(), caller.principal(None));
    let cancelling = tokio::spawn(async move { store.cancel_task(task, &by, None).await });
    let cancelled = cancelling.await.map_err(|error| {
        tracing::error!(%error, "a cancellation was lost");
        Refusal::retry(code::INTERNAL, "the task may not be cancelled; try again")
    })?;
    match cancelled? {
        Cancelled::Now { namespace } => {
            let state = TaskState::Cancelled;
            api.links.task_cancelled(FinishedTask { id: task, namespace, state });
            Ok((StatusCode::ACCEPTED, Json(json!({ "id": task, "state": state }))))
        }
        Cancelled::Ended(state) => {
            let message = format!("task {task} has already ended: {state}");
            Err(Refusal::new(code::TASK_ENDED, message).into())
        }
        Cancelled::Unknown => Err(no_task(task)),
    }
}
