//! From a submission to the task that is to be stored.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tasker_messages::{Identity, Namespace, Problem, Refusal, StepId, TaskId, TaskRequest, code};
use tasker_store::{NewTask, StoreError, StoredTemplate};
use tasker_workflow::check_context;
use uuid::Uuid;

use super::intake::Submission;
use super::node::Node;

/// What a template is asked for by; without a version it is the newest.
pub(super) type TemplateKey = (Namespace, String, Option<String>);

pub(super) fn template_key(request: &TaskRequest) -> TemplateKey {
    (request.namespace.clone(), request.name.to_string(), request.version.clone())
}

/// The templates of submissions.
pub(super) async fn load_templates(
    node: &Node,
    set: &[Submission],
) -> Result<HashMap<TemplateKey, Option<StoredTemplate>>, StoreError> {
    let mut templates = HashMap::new();
    for submission in set {
        let key = template_key(&submission.request);
        if let Entry::Vacant(vacant) = templates.entry(key) {
            let (namespace, name, version) = vacant.key();
            let found = node.store.load_template(namespace, name, version.as_deref()).await?;
            vacant.insert(found);
        }
    }
    Ok(templates)
}

/// Checks the context against the template's schema, away from the threads that everything else
/// waits for. A context whose check panics is refused alone; `None` if the process ends meanwhile.
pub(super) async fn check_input(
    found: Option<&StoredTemplate>,
    request: &mut TaskRequest,
) -> Option<Result<(), Refusal>> {
    let Some(schema) = found.and_then(|found| found.template.input_schema.clone()) else {
        return Some(Ok(()));
    };
    // Shared, so that it is there again whatever becomes of the check.
    let context = Arc::new(std::mem::take(&mut request.context));
    let checked = Arc::clone(&context);
    let check = tokio::task::spawn_blocking(move || check_context(&schema, &checked));
    let problems = check.await;
    request.context = Arc::unwrap_or_clone(context);
    let problems = match problems {
        Ok(problems) => problems,
        Err(error) if error.is_panic() => {
            let message = "the context could not be checked against its template's input_schema";
            return Some(Err(Refusal::new(code::CONTEXT_SCHEMA_VIOLATION, message)));
        }
        Err(_) => return None,
    };
    Some(match problems.is_empty() {
        true => Ok(()),
        false => Err(Refusal::of_document("the submission", problems)),
    })
}

/// The task that is asked for, of this template.
pub(super) fn plan(
    node: &Node,
    found: Option<&StoredTemplate>,
    request: &TaskRequest,
) -> Result<NewTask, Refusal> {
    let Some(found) = found else {
        let version =
            request.version.as_ref().map(|v| format!(" in version {v}")).unwrap_or_default();
        let message = format!(
            "there is no template `{}` in namespace `{}`{version}; register it first",
            request.name, request.namespace
        );
        let problem = Problem::new(code::TEMPLATE_NOT_FOUND, message).at("name");
        return Err(Refusal::of_document("the submission", vec![problem]));
    };
    let plan = found.template.submission();
    let most = node.settings.submit.max_static_steps;
    if plan.steps.len() > most as usize {
        let message = format!("{} steps are more than the limit of {most}", plan.steps.len());
        return Err(Refusal::new(code::TOO_LARGE, message));
    }
    // What is asked for when nobody can be asked again is the template that was found.
    let strict = request.identity == Some(Identity::Strict);
    let version =
        if strict { Some(found.template.version.as_str()) } else { request.version.as_deref() };
    let request_hash = request_hash(request, version);
    let mut request = request.clone();
    request.idempotency_key = identity_key(&request, &request_hash)?;
    Ok(NewTask {
        id: TaskId::from_uuid(Uuid::now_v7()),
        request_hash,
        request,
        template_id: found.id,
        assumes_newest: false,
        template: Arc::clone(&found.template),
        step_ids: plan.steps.iter().map(|_| StepId::from_uuid(Uuid::now_v7())).collect(),
        plan,
    })
}

/// How the keys begin that stand for the whole request; callers cannot take one.
const STRICT: &str = "strict:";

/// The key under which a submission is the only one.
fn identity_key(request: &TaskRequest, hash: &[u8; 32]) -> Result<Option<String>, Refusal> {
    let key = request.idempotency_key.clone();
    let refuse = |code, message: String| {
        let problem = Problem::new(code, message).at("idempotency_key");
        Err(Refusal::of_document("the submission", vec![problem]))
    };
    match request.identity {
        Some(Identity::Strict) => {
            use std::fmt::Write;
            let mut strict = STRICT.to_owned();
            for byte in hash {
                // Writing to a String cannot fail.
                let _infallible = write!(strict, "{byte:02x}");
            }
            Ok(Some(strict))
        }
        Some(Identity::CallerProvided) if key.is_none() => {
            let message = "the identity `caller_provided` needs one, here or as a header";
            refuse(code::MISSING_KEY, format!("is missing: {message}"))
        }
        _ if key.as_ref().is_some_and(|key| key.starts_with(STRICT)) => {
            let message = format!("must not begin with `{STRICT}`, as keys of our own do");
            refuse(code::INVALID_VALUE, message)
        }
        Some(Identity::CallerProvided | Identity::AlwaysUnique) | None => Ok(key),
    }
}

/// Two requests with one idempotency key are the same if they ask for the same thing: template,
/// version and context; who asked and why may differ.
fn request_hash(request: &TaskRequest, version: Option<&str>) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for part in [request.name.as_str(), version.unwrap_or("")] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    // Objects are sorted by key when read, so that the order of keys does not matter.
    hash.update(request.context.to_string());
    hash.finalize().into()
}
