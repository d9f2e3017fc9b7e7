//! `/v1/workers`.

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use tasker_messages::{DrainWorker, Namespace, Refusal, WorkerId, WorkerList, code};
use tasker_store::not_heard_of;

use super::Api;
use super::extract::Route;
use super::gate::Caller;
use super::problem::ApiError;
use super::query::{Params, id};
use super::repair::read;

/// Workers that were heard of within the last hour.
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: RawQuery,
) -> Result<Json<WorkerList>, ApiError> {
    let params = Params::read(query, &["namespace", "limit"])?;
    let scope = caller.narrowed(params.get::<Namespace>("namespace")?)?;
    let limit = params.limit()?;
    let live_within = api.node.workers_live_within();
    Ok(Json(api.node.store.list_workers(&scope, live_within, limit).await?))
}

/// One worker, once per namespace.
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Route(worker): Route<String>,
) -> Result<Json<WorkerList>, ApiError> {
    Ok(Json(find(&api, &caller, id(&worker)?).await?))
}

async fn find(api: &Api, caller: &Caller, worker: WorkerId) -> Result<WorkerList, ApiError> {
    let found =
        api.node.store.worker(caller.scope(), worker, api.node.workers_live_within()).await?;
    if found.workers.is_empty() { Err(not_heard_of(worker).into()) } else { Ok(found) }
}

/// Asks a worker to take nothing more. It has been stored that it should when this answers.
pub(super) async fn drain(
    State(api): State<Api>,
    caller: Caller,
    Route(worker): Route<String>,
    body: Body,
) -> Result<(StatusCode, Json<WorkerList>), ApiError> {
    let worker: WorkerId = id(&worker)?;
    let DrainWorker { reason, by } = read(&api, body).await?;
    let by = caller.audited(&reason, by)?;
    let (store, live_within) = (api.node.store.clone(), api.node.workers_live_within());
    let scope = caller.scope().clone();
    // A transaction must not end with the connection of whoever asked for it.
    let asking =
        tokio::spawn(
            async move { store.ask_to_drain(&scope, worker, &by, &reason, live_within).await },
        );
    asking.await.map_err(|error| {
        tracing::error!(%error, "a wish to drain a worker was lost");
        Refusal::retry(code::INTERNAL, "it is not known whether the worker was asked to drain")
    })???;
    let found = find(&api, &caller, worker).await?;
    for view in found.workers.iter().filter(|view| view.live && !view.draining) {
        api.links.worker_drains(&api.node, view).await;
    }
    Ok((StatusCode::ACCEPTED, Json(found)))
}
