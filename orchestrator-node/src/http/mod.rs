//! The HTTP API. A handler reads its request, calls store or actors and shapes the answer.

mod batches;
mod dlq;
mod extract;
mod gate;
mod namespaces;
mod problem;
mod query;
mod repair;
mod routes;
mod status;
mod tasks;
mod templates;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::{Extension, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use tasker_actors::orchestrator::{Links, Node};
use tasker_messages::Role;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::gate::Gate;
use self::problem::ApiError;
pub use self::routes::RouteView;
use self::routes::{Method, Routes};

/// What every handler works with.
#[derive(Clone)]
struct Api {
    node: Node,
    links: Links,
    metrics: PrometheusHandle,
}

/// Largest template as YAML, and some room to tell a larger one so.
const MAX_TEMPLATE_BYTES: usize = 320 * 1024;

/// Everything that is served. A route is in this table or nowhere.
fn table() -> Routes {
    use Method::{Delete, Get, Patch, Post, Put};
    use Role::{Admin, Operator, Submitter, Viewer};
    Routes::default()
        .with(Submitter, Post, "/v1/tasks", tasks::submit)
        .with(Viewer, Get, "/v1/tasks", tasks::list)
        .with(Viewer, Get, "/v1/tasks/{id}", tasks::show)
        .with(Operator, Delete, "/v1/tasks/{id}", tasks::cancel)
        .with(Viewer, Get, "/v1/tasks/{id}/summary", tasks::summary)
        .with(Viewer, Get, "/v1/tasks/{id}/why", tasks::why)
        .with(Viewer, Get, "/v1/tasks/{id}/steps", tasks::steps)
        .with(Viewer, Get, "/v1/tasks/{id}/steps/{step}", tasks::step)
        .with(Operator, Patch, "/v1/tasks/{id}/steps/{step}", repair::step)
        .with(Operator, Post, "/v1/tasks/{id}/batches/{batch}/retry", repair::batch)
        .with(Operator, Post, "/v1/tasks/{id}/retry", repair::task)
        .with(Viewer, Get, "/v1/batches/{id}", batches::show)
        .with(Viewer, Get, "/v1/batches/{id}/audit", batches::audit)
        .with(Viewer, Get, "/v1/dlq", dlq::list)
        .with(Viewer, Get, "/v1/dlq/groups", dlq::groups)
        .with(Operator, Post, "/v1/dlq/purge", dlq::purge)
        .with(Viewer, Get, "/v1/dlq/{id}", dlq::show)
        .with(Operator, Post, "/v1/dlq/{id}/redrive", dlq::redrive)
        .with(Viewer, Get, "/v1/namespaces", namespaces::list)
        .with(Admin, Put, "/v1/namespaces/{name}", namespaces::set)
        .with(Viewer, Get, "/v1/workers", workers::list)
        .with(Viewer, Get, "/v1/workers/{id}", workers::show)
        .with(Operator, Post, "/v1/workers/{id}/drain", workers::drain)
        .with(Admin, Post, "/v1/templates", templates::register)
        .with(Viewer, Get, "/v1/templates", templates::list)
        // It runs a template that nobody has registered.
        .with(Admin, Post, "/v1/templates/plan", templates::plan)
        .with(Viewer, Get, "/v1/templates/{namespace}/{name}", templates::show)
        .open(Get, "/health", status::health)
        .open(Get, "/ready", status::ready)
        .open(Get, "/metrics", status::metrics)
}

/// The routes that an orchestrator serves, and who may use them.
pub fn routes() -> Vec<RouteView> {
    table().listed
}

pub(crate) fn router(node: Node, links: Links, metrics: PrometheusHandle) -> Router {
    let gate = Arc::new(Gate::new(&node.settings.api, &node.store));
    table()
        .router
        .fallback(|| async { ApiError::not_found("there is no such route") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(Extension(gate))
        .with_state(Api { node, links, metrics })
}

/// Serves until told to stop; what is being answered then is finished.
pub(crate) async fn serve(listener: TcpListener, app: Router, mut stopped: watch::Receiver<bool>) {
    let until_stopped = async move {
        // A sender that is gone means that the process stops.
        let _sender_gone = stopped.wait_for(|is| *is).await;
    };
    // Whoever has no token is counted by address.
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, app).with_graceful_shutdown(until_stopped).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP API has ended");
    }
}
