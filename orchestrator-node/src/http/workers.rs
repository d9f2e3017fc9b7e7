//! `/v1/workers`.

use axum::Json;
use axum::extract::{RawQuery, State};
use tasker_messages::{Namespace, WorkerList};

use super::Api;
use super::problem::ApiError;
use super::query::Params;

/// Workers that were heard of within the last hour.
pub(super) async fn list(
    State(api): State<Api>,
    query: RawQuery,
) -> Result<Json<WorkerList>, ApiError> {
    let params = Params::read(query, &["namespace", "limit"])?;
    let namespace: Option<Namespace> = params.get("namespace")?;
    let limit = params.limit()?;
    let live_within = api.node.workers_live_within();
    Ok(Json(api.node.store.list_workers(namespace.as_ref(), live_within, limit).await?))
}
