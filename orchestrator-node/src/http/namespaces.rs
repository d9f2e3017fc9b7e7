//! `/v1/namespaces`.

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use tasker_messages::{Namespace, NamespaceList, NamespaceView, Refusal, SetNamespace, code};

use super::Api;
use super::extract::Route;
use super::gate::Caller;
use super::problem::ApiError;
use super::query::Params;
use super::repair::{read, unusable};

pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: RawQuery,
) -> Result<Json<NamespaceList>, ApiError> {
    let params = Params::read(query, &["after", "limit"])?;
    let after: Option<Namespace> = params.get("after")?;
    Ok(Json(api.node.store.list_namespaces(caller.scope(), after.as_ref(), params.limit()?).await?))
}

/// Changes a namespace, or makes it. The limits hold on this node when it answers.
pub(super) async fn set(
    State(api): State<Api>,
    caller: Caller,
    Route(name): Route<String>,
    body: Body,
) -> Result<Json<NamespaceView>, ApiError> {
    let name =
        Namespace::new(&name).map_err(|e| ApiError::bad_request("namespace", e.to_string()))?;
    caller.scope().check(name.as_str())?;
    let set: SetNamespace = read(&api, body).await?;
    let by = caller.audited(&set.reason, set.by.clone())?;
    set.check().map_err(unusable)?;
    // A transaction must not end with the connection of whoever asked for it.
    let setting = tokio::spawn(async move {
        let view = api.node.store.set_namespace(&name, &set, &by).await;
        // Also after a commit that nobody is sure of.
        api.links.limits_changed(&api.node).await;
        view
    });
    let lost =
        || Refusal::retry(code::INTERNAL, "it is not known whether the namespace was changed");
    let view = setting.await.map_err(|error| {
        tracing::error!(%error, "a change of a namespace was lost");
        lost()
    })??;
    Ok(Json(view.ok_or_else(lost)?))
}
