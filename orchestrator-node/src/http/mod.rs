//! The HTTP API. A handler reads its request, calls store or actors and shapes the answer.

mod batches;
mod dlq;
mod extract;
mod namespaces;
mod problem;
mod query;
mod repair;
mod status;
mod tasks;
mod templates;
mod workers;

use axum::Router;
use axum::routing::{get, post, put};
use metrics_exporter_prometheus::PrometheusHandle;
use tasker_actors::orchestrator::{Links, Node};
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::problem::ApiError;

/// What every handler works with.
#[derive(Clone)]
struct Api {
    node: Node,
    links: Links,
    metrics: PrometheusHandle,
}

/// Largest template as YAML, and some room to tell a larger one so.
const MAX_TEMPLATE_BYTES: usize = 320 * 1024;

pub(crate) fn router(node: Node, links: Links, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/v1/tasks", post(tasks::submit).get(tasks::list))
        .route("/v1/tasks/{id}", get(tasks::show).delete(tasks::cancel))
        .route("/v1/tasks/{id}/summary", get(tasks::summary))
        .route("/v1/tasks/{id}/why", get(tasks::why))
        .route("/v1/tasks/{id}/steps", get(tasks::steps))
        .route("/v1/tasks/{id}/steps/{step}", get(tasks::step).patch(repair::step))
        .route("/v1/tasks/{id}/batches/{batch}/retry", post(repair::batch))
        .route("/v1/tasks/{id}/retry", post(repair::task))
        .route("/v1/batches/{id}", get(batches::show))
        .route("/v1/batches/{id}/audit", get(batches::audit))
        .route("/v1/dlq", get(dlq::list))
        .route("/v1/dlq/groups", get(dlq::groups))
        .route("/v1/dlq/purge", post(dlq::purge))
        .route("/v1/dlq/{id}", get(dlq::show))
        .route("/v1/dlq/{id}/redrive", post(dlq::redrive))
        .route("/v1/namespaces", get(namespaces::list))
        .route("/v1/namespaces/{name}", put(namespaces::set))
        .route("/v1/workers", get(workers::list))
        .route("/v1/workers/{id}", get(workers::show))
        .route("/v1/workers/{id}/drain", post(workers::drain))
        .route("/v1/templates", post(templates::register).get(templates::list))
        .route("/v1/templates/plan", post(templates::plan))
        .route("/v1/templates/{namespace}/{name}", get(templates::show))
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/metrics", get(status::metrics))
        .fallback(|| async { ApiError::not_found("there is no such route") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .with_state(Api { node, links, metrics })
}

/// Serves until told to stop; what is being answered then is finished.
pub(crate) async fn serve(listener: TcpListener, app: Router, mut stopped: watch::Receiver<bool>) {
    let until_stopped = async move {
        // A sender that is gone means that the process stops.
        let _sender_gone = stopped.wait_for(|is| *is).await;
    };
    let served = axum::serve(listener, app).with_graceful_shutdown(until_stopped).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP API has ended");
    }
}
