//! `/v1/dlq`.

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use tasker_messages::{
    DeadLetter, DeadLetterGroups, DeadLetterKind, DeadLetterList, DeadLetterView, Identity,
    Namespace, Purge, Purged, Redriven, Refusal, Retry, TaskRequest, code,
};
use tasker_store::{DeadLetterFilter, RepairTarget};
use tasker_workflow::RepairAction;

use super::Api;
use super::extract::Route;
use super::gate::Caller;
use super::problem::ApiError;
use super::query::{Params, id};
use super::repair::{invalid, read, repair, unusable};

fn no_letter(id: i64) -> ApiError {
    Refusal::new(code::DEAD_LETTER_NOT_FOUND, format!("there is no dead letter {id}")).into()
}

/// The namespace of a query, which of a refused message need not be a valid one.
fn named(caller: &Caller, params: &Params) -> Result<Option<String>, ApiError> {
    let namespace: Option<String> = params.get("namespace")?;
    namespace.as_deref().map_or(Ok(()), |name| caller.scope().check(name))?;
    Ok(namespace)
}

pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: RawQuery,
) -> Result<Json<DeadLetterList>, ApiError> {
    let known = ["namespace", "kind", "fingerprint", "redriven", "after", "limit"];
    let params = Params::read(query, &known)?;
    let filter = DeadLetterFilter {
        scope: caller.scope().clone(),
        id: None,
        namespace: named(&caller, &params)?,
        kind: params.get::<DeadLetterKind>("kind")?,
        fingerprint: params.get("fingerprint")?,
        redriven: params.get("redriven")?,
    };
    let (after, limit) = (params.get("after")?, params.limit()?);
    Ok(Json(api.node.store.list_dead_letters(&filter, after, limit).await?))
}

/// Open letters by fingerprint.
pub(super) async fn groups(
    State(api): State<Api>,
    caller: Caller,
    query: RawQuery,
) -> Result<Json<DeadLetterGroups>, ApiError> {
    let params = Params::read(query, &["namespace"])?;
    let namespace = named(&caller, &params)?;
    Ok(Json(api.node.store.group_dead_letters(caller.scope(), namespace.as_deref()).await?))
}

pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Route(path): Route<String>,
) -> Result<Json<DeadLetterView>, ApiError> {
    let letter: i64 = id(&path)?;
    let view = api.node.store.view_dead_letter(caller.scope(), letter).await?;
    Ok(Json(view.ok_or_else(|| no_letter(letter))?))
}

/// Gives a letter another try: a member runs again, a message is submitted under the key with which it
/// was carried, a task under one made of the letter's number: a second try makes no second task.
pub(super) async fn redrive(
    State(api): State<Api>,
    caller: Caller,
    Route(path): Route<String>,
    body: Body,
) -> Result<Json<Redriven>, ApiError> {
    let number: i64 = id(&path)?;
    let Retry { reason, by, cascade } = read(&api, body).await?;
    let principal = caller.audited(&reason, by.clone())?;
    let letter = api.node.store.find_dead_letter(caller.scope(), number).await?;
    let letter = letter.ok_or_else(|| no_letter(number))?;
    if let Some(at) = &letter.redriven_at {
        let message = format!("dead letter {number} was redriven at {at}");
        return Err(Refusal::new(code::ALREADY_REDRIVEN, message).into());
    }
    let task_id = match (letter.kind, letter.task_id, letter.step_id) {
        (DeadLetterKind::Member, Some(task), Some(step)) => {
            let target = RepairTarget::Step(step, RepairAction::Reset, None);
            // The repair itself closes the letter.
            repair(&api, &caller, task, target, Retry { reason, by, cascade }).await?.0.id
        }
        _ if cascade => return Err(invalid("cascade", "belongs to letters of members only")),
        _ => {
            let request = request_of(&api, &letter).await?;
            caller.scope().check(request.namespace.as_str())?;
            let accepted = api.links.submit(request).await?;
            api.node.store.note_redriven(&letter, accepted.id, &principal, &reason).await?;
            accepted.id
        }
    };
    Ok(Json(Redriven { id: number, task_id }))
}

/// What a letter asks for.
async fn request_of(api: &Api, letter: &DeadLetter) -> Result<TaskRequest, ApiError> {
    let own_key = || format!("dead-letter:{}", letter.id);
    if let Some(task) = letter.task_id {
        let mut request = api.node.store.request_of_task(task).await?.ok_or_else(|| {
            Refusal::new(code::TASK_NOT_FOUND, format!("there is no task {task}"))
        })?;
        request.idempotency_key = Some(own_key());
        return Ok(request);
    }
    let namespace = Namespace::new(&letter.namespace)
        .map_err(|e| Refusal::new(code::INVALID_NAME, e.to_string()))?;
    let kept = api.node.store.kept_message(letter.id).await?.unwrap_or_default();
    let mut request = TaskRequest::parse(&kept.payload, Some(&namespace))
        .map_err(|problems| Refusal::of_document("the message", problems))?;
    if let Some(Err(problem)) = kept.key.as_deref().map(TaskRequest::check_key) {
        let message = format!("{}; submit it anew with another one", problem.message);
        return Err(invalid("idempotency_key", &message));
    }
    request.idempotency_key = request.idempotency_key.or(kept.key);
    // A producer who said that it provides a key forgot it; that is not made good here.
    if request.identity != Some(Identity::CallerProvided) {
        request.idempotency_key.get_or_insert_with(|| kept.place.unwrap_or_else(own_key));
    }
    Ok(request)
}

pub(super) async fn purge(
    State(api): State<Api>,
    caller: Caller,
    body: Body,
) -> Result<Json<Purged>, ApiError> {
    let purge: Purge = read(&api, body).await?;
    let by = caller.audited(&purge.reason, purge.by.clone())?;
    purge.check().map_err(unusable)?;
    let scope = caller.narrowed(purge.namespace.clone())?;
    // A transaction must not end with the connection of whoever asked for it.
    let store = api.node.store.clone();
    let purging = tokio::spawn(async move { store.purge_dead_letters(&scope, &purge, &by).await });
    let letters = purging.await.map_err(|error| {
        tracing::error!(%error, "a purge was lost");
        Refusal::retry(code::INTERNAL, "it is not known whether letters were removed; look again")
    })??;
    Ok(Json(Purged { letters }))
}
