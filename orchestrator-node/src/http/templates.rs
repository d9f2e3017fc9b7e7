//! `/v1/templates`.

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use tasker_actors::orchestrator::plan_template;
use tasker_messages::{
    Namespace, PlanTemplate, Refusal, StepName, TemplateId, TemplateList, TemplatePlan,
    TemplateSummary, TemplateView, code,
};
use tasker_workflow::Template;
use uuid::Uuid;

use super::extract::{Route, read_body};
use super::gate::Caller;
use super::problem::ApiError;
use super::query::Params;
use super::repair::read_up_to;
use super::{Api, MAX_TEMPLATE_BYTES};

/// Registers a version. The same source again changes nothing; another one under the same name and
/// version is refused.
pub(super) async fn register(
    State(api): State<Api>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<TemplateSummary>), ApiError> {
    let body = read_body(body, MAX_TEMPLATE_BYTES).await?;
    let template = Template::parse(&body)
        .map_err(|problems| Refusal::of_document("the template", problems))?;
    caller.scope().check(template.namespace.as_str())?;
    // What was parsed is UTF-8.
    let source = String::from_utf8_lossy(&body);
    let id = TemplateId::from_uuid(Uuid::now_v7());
    let version = api.node.store.register_template(id, &template, &source).await?;
    if !version.created && version.source != source {
        let summary = &version.summary;
        let message = format!(
            "{}/{} {} is stored with another content; raise the version",
            summary.namespace, summary.name, summary.version
        );
        return Err(Refusal::new(code::TEMPLATE_CONFLICT, message).into());
    }
    let status = if version.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(version.summary)))
}

/// Runs the analyzers of a template and says which batches a task would have. Stores nothing.
pub(super) async fn plan(
    State(api): State<Api>,
    caller: Caller,
    body: Body,
) -> Result<Json<TemplatePlan>, ApiError> {
    let request: PlanTemplate = read_up_to(PlanTemplate::MAX_BYTES, body).await?;
    Ok(Json(plan_template(&api.node, caller.scope(), request).await?))
}

pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: RawQuery,
) -> Result<Json<TemplateList>, ApiError> {
    let params = Params::read(query, &["namespace"])?;
    let scope = caller.narrowed(params.get::<Namespace>("namespace")?)?;
    let templates = api.node.store.list_templates(&scope).await?;
    Ok(Json(TemplateList { templates }))
}

pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Route((namespace, name)): Route<(String, String)>,
    query: RawQuery,
) -> Result<Json<TemplateView>, ApiError> {
    let namespace = Namespace::new(&namespace)
        .map_err(|e| ApiError::bad_request("namespace", e.to_string()))?;
    caller.scope().check(namespace.as_str())?;
    let name = StepName::new(&name).map_err(|e| ApiError::bad_request("name", e.to_string()))?;
    let params = Params::read(query, &["version"])?;
    let version: Option<String> = params.get("version")?;
    let found = api.node.store.find_template(&namespace, name.as_str(), version.as_deref()).await?;
    let Some((_, version)) = found else {
        let message = format!("there is no template `{name}` in namespace `{namespace}`");
        return Err(Refusal::new(code::TEMPLATE_NOT_FOUND, message).into());
    };
    Ok(Json(TemplateView { summary: version.summary, source: version.source }))
}
