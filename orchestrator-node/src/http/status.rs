//! Whether the process lives and can take work, and its metrics.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tasker_messages::{Refusal, code};

use super::Api;
use super::problem::ApiError;

pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Ready is who reaches the database and the bus.
pub(super) async fn ready(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    api.node.store.ping().await?;
    if !api.node.bus.connection().borrow().connected {
        return Err(Refusal::retry(code::UNAVAILABLE, "not connected to NATS").into());
    }
    Ok(Json(json!({ "status": "ready", "node": api.node.id })))
}

pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], api.metrics.render())
}
