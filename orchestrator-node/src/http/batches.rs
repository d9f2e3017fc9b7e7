//! `/v1/batches`.

use axum::Json;
use axum::extract::State;
use tasker_messages::{BatchAudit, BatchId, BatchView, Refusal, code};

use super::Api;
use super::extract::Route;
use super::gate::Caller;
use super::problem::ApiError;

pub(super) fn no_batch(id: BatchId) -> ApiError {
    Refusal::new(code::BATCH_NOT_FOUND, format!("there is no batch {id}")).into()
}

/// A batch in numbers.
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Route(path): Route<String>,
) -> Result<Json<BatchView>, ApiError> {
    let batch = caller.batch(&api, &path).await?;
    let view = api.node.store.view_batch(batch).await?;
    Ok(Json(view.ok_or_else(|| no_batch(batch))?))
}

/// A batch held against its members. Reads every one of them.
pub(super) async fn audit(
    State(api): State<Api>,
    caller: Caller,
    Route(path): Route<String>,
) -> Result<Json<BatchAudit>, ApiError> {
    let batch = caller.batch(&api, &path).await?;
    // A transaction must not end with the connection of whoever asked for it.
    let store = api.node.store.clone();
    let auditing = tokio::spawn(async move { store.audit_batch(batch).await });
    let audit = auditing.await.map_err(|error| {
        tracing::error!(%error, "an audit was lost");
        Refusal::retry(code::INTERNAL, "the batch could not be audited; try again")
    })?;
    Ok(Json(audit?.ok_or_else(|| no_batch(batch))?))
}
