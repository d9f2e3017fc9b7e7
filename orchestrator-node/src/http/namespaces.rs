//! `/v1/namespaces`.

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use tasker_messages::{Namespace, NamespaceList, NamespaceView, Refusal, SetNamespace, code};

use super::Api;
use super::extract::Route;
use super::problem::ApiError;
use super::query::Params;
use super::repair::{MAX_TEXT, audited, invalid, read};

pub(super) async fn list(
    State(api): State<Api>,
    query: RawQuery,
) -> Result<Json<NamespaceList>, ApiError> {
    let params = Params::read(query, &["after", "limit"])?;
    let after: Option<Namespace> = params.get("after")?;
    Ok(Json(api.node.store.list_namespaces(after.as_ref(), params.limit()?).await?))
}

/// Changes a namespace, or makes it. The limits hold on this node when it answers.
pub(super) async fn set(
    State(api): State<Api>,
    Route(name): Route<String>,
    body: Body,
) -> Result<Json<NamespaceView>, ApiError> {
    let name =
        Namespace::new(&name).map_err(|e| ApiError::bad_request("namespace", e.to_string()))?;
    let set: SetNamespace = read(&api, body).await?;
    let by = audited(&set.reason, set.by.clone())?;
    check(&set)?;
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

fn check(set: &SetNamespace) -> Result<(), ApiError> {
    let described = set.description.as_ref().and_then(Option::as_deref);
    if described.is_some_and(|text| text.trim().is_empty() || text.len() > MAX_TEXT) {
        return Err(invalid("description", &format!("must be 1 to {MAX_TEXT} bytes of text")));
    }
    if set.queues.len() > SetNamespace::MOST_QUEUES {
        return Err(invalid("queues", &format!("must be at most {}", SetNamespace::MOST_QUEUES)));
    }
    let open = ("max_open_tasks".to_owned(), set.max_open_tasks.flatten());
    let all = ("max_running".to_owned(), set.max_running.flatten());
    let running = set
        .queues
        .iter()
        .map(|(queue, wish)| (format!("queues.{queue}.max_running"), wish.max_running.flatten()));
    for (field, limit) in [open, all].into_iter().chain(running) {
        if limit.is_some_and(|limit| !(1..=SetNamespace::MOST).contains(&limit)) {
            let most = SetNamespace::MOST;
            return Err(invalid(&field, &format!("must be null, for none, or 1 to {most}")));
        }
    }
    Ok(())
}
