use std::time::Duration;

use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tasker_messages::{
    Accepted, BatchAudit, BatchId, BatchView, DeadLetterGroups, DeadLetterKind, DeadLetterList,
    DeadLetterView, DrainWorker, Namespace, NamespaceList, NamespaceView, PlanTemplate, Purge,
    Purged, Redriven, RepairStep, Repaired, Retry, SetNamespace, StepHistory, StepId, StepPage,
    TaskId, TaskList, TaskState, TaskSummary, TaskView, TemplateList, TemplatePlan,
    TemplateSummary, TemplateView, Why, WorkerId, WorkerList,
};

use super::ClientError;
use super::http::{Call, Http};
use crate::exit::Exit;
use crate::template_ref::TemplateRef;

/// A client of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: Http,
}

/// An answer: the text as the cluster sent it, which is what `-o json` prints, and its meaning.
#[derive(Debug)]
pub(crate) struct Document<T> {
    pub(crate) text: String,
    pub(crate) value: T,
}

/// The answer to a cancellation.
#[derive(Debug, Deserialize)]
pub(crate) struct Cancelled {
    pub(crate) id: TaskId,
    pub(crate) state: TaskState,
}

/// Which tasks to list.
#[derive(Debug, Default)]
pub(crate) struct TaskQuery {
    pub(crate) namespace: Option<Namespace>,
    pub(crate) state: Option<TaskState>,
    pub(crate) limit: Option<u32>,
    pub(crate) after: Option<TaskId>,
}

/// Which steps of a task to list.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct StepQuery {
    pub(crate) limit: Option<u32>,
    pub(crate) after: Option<StepId>,
}

/// Which dead letters to list.
#[derive(Debug)]
pub(crate) struct DeadLetterQuery {
    pub(crate) namespace: Option<Namespace>,
    pub(crate) kind: Option<DeadLetterKind>,
    pub(crate) fingerprint: Option<String>,
    pub(crate) redriven: Option<bool>,
    pub(crate) after: Option<i64>,
    pub(crate) limit: u32,
}

type Parameter = (&'static str, Option<String>);

fn parameter(name: &'static str, value: Option<impl ToString>) -> Parameter {
    (name, value.map(|value| value.to_string()))
}

impl Client {
    /// A client of the cluster behind this URL, with this token if it needs one.
    pub(crate) fn new(url: &str, token: Option<&str>) -> Result<Self, Exit> {
        Http::new(url, token).map(|http| Self { http })
    }

    /// Submits a task. A key, or an identity that needs none,
    /// makes sending it again harmless.
    pub(crate) async fn submit(
        &self,
        request: String,
        idempotency_key: Option<&str>,
    ) -> Result<Document<Accepted>, ClientError> {
        let mut call = self.call(Method::POST, &["tasks"], &[]);
        call.headers.push(("content-type", "application/json".to_owned()));
        call.headers.extend(idempotency_key.map(|key| ("idempotency-key", key.to_owned())));
        call.body = request.into_bytes();
        self.read(call).await
    }

    /// A task; with a `wait`, as it is when it ends or the time is up.
    pub(crate) async fn task(
        &self,
        id: TaskId,
        wait: Option<Duration>,
    ) -> Result<Document<TaskView>, ClientError> {
        let seconds = wait.map(|wait| wait.as_secs());
        let path = ["tasks", &id.to_string()];
        let mut call = self.call(Method::GET, &path, &[parameter("wait", seconds)]);
        call.wait = wait.unwrap_or_default();
        self.read(call).await
    }

    /// A task and its batches in numbers.
    pub(crate) async fn summary(&self, id: TaskId) -> Result<TaskSummary, ClientError> {
        let path = ["tasks", &id.to_string(), "summary"];
        Ok(self.read(self.call(Method::GET, &path, &[])).await?.value)
    }

    /// A page of tasks.
    pub(crate) async fn tasks(&self, query: &TaskQuery) -> Result<Document<TaskList>, ClientError> {
        let parameters = [
            parameter("namespace", query.namespace.as_ref()),
            parameter("state", query.state),
            parameter("limit", query.limit),
            parameter("after", query.after),
        ];
        self.read(self.call(Method::GET, &["tasks"], &parameters)).await
    }

    /// A page of a task's steps.
    pub(crate) async fn steps(
        &self,
        id: TaskId,
        query: StepQuery,
    ) -> Result<Document<StepPage>, ClientError> {
        let path = ["tasks", &id.to_string(), "steps"];
        let parameters = [parameter("limit", query.limit), parameter("after", query.after)];
        self.read(self.call(Method::GET, &path, &parameters)).await
    }

    /// Why a task is where it is.
    pub(crate) async fn why(&self, id: TaskId) -> Result<Document<Why>, ClientError> {
        self.read(self.call(Method::GET, &["tasks", &id.to_string(), "why"], &[])).await
    }

    /// One step, named by id or name, with its failed attempts.
    pub(crate) async fn step(
        &self,
        task: TaskId,
        step: &str,
    ) -> Result<Document<StepHistory>, ClientError> {
        self.read(self.call(Method::GET, &["tasks", &task.to_string(), "steps", step], &[])).await
    }

    /// A batch in numbers.
    pub(crate) async fn batch(&self, id: BatchId) -> Result<Document<BatchView>, ClientError> {
        self.read(self.call(Method::GET, &["batches", &id.to_string()], &[])).await
    }

    /// A batch held against its members.
    pub(crate) async fn audit(&self, id: BatchId) -> Result<Document<BatchAudit>, ClientError> {
        self.read(self.call(Method::GET, &["batches", &id.to_string(), "audit"], &[])).await
    }

    /// Workers of the last hour.
    pub(crate) async fn workers(
        &self,
        namespace: Option<&Namespace>,
    ) -> Result<Document<WorkerList>, ClientError> {
        let parameters = [parameter("namespace", namespace), parameter("limit", Some(1_000))];
        self.read(self.call(Method::GET, &["workers"], &parameters)).await
    }

    /// One worker, once per namespace.
    pub(crate) async fn worker(&self, id: WorkerId) -> Result<Document<WorkerList>, ClientError> {
        self.read(self.call(Method::GET, &["workers", &id.to_string()], &[])).await
    }

    /// Asks a worker to take nothing more.
    pub(crate) async fn drain_worker(
        &self,
        id: WorkerId,
        request: &DrainWorker,
    ) -> Result<Document<WorkerList>, ClientError> {
        let path = ["workers", &id.to_string(), "drain"];
        self.read(self.document(Method::POST, &path, request)).await
    }

    /// A page of dead letters.
    pub(crate) async fn dead_letters(
        &self,
        query: &DeadLetterQuery,
    ) -> Result<Document<DeadLetterList>, ClientError> {
        let parameters = [
            parameter("namespace", query.namespace.as_ref()),
            parameter("kind", query.kind),
            parameter("fingerprint", query.fingerprint.as_ref()),
            parameter("redriven", query.redriven),
            parameter("after", query.after),
            parameter("limit", Some(query.limit)),
        ];
        self.read(self.call(Method::GET, &["dlq"], &parameters)).await
    }

    /// Open dead letters by fingerprint.
    pub(crate) async fn dead_letter_groups(
        &self,
        namespace: Option<&Namespace>,
    ) -> Result<Document<DeadLetterGroups>, ClientError> {
        let parameters = [parameter("namespace", namespace)];
        self.read(self.call(Method::GET, &["dlq", "groups"], &parameters)).await
    }

    /// One dead letter.
    pub(crate) async fn dead_letter(
        &self,
        id: i64,
    ) -> Result<Document<DeadLetterView>, ClientError> {
        self.read(self.call(Method::GET, &["dlq", &id.to_string()], &[])).await
    }

    /// Gives a dead letter another try.
    pub(crate) async fn redrive(
        &self,
        id: i64,
        request: &Retry,
    ) -> Result<Document<Redriven>, ClientError> {
        let path = ["dlq", &id.to_string(), "redrive"];
        self.read(self.document(Method::POST, &path, request)).await
    }

    /// Removes dead letters.
    pub(crate) async fn purge(&self, request: &Purge) -> Result<Document<Purged>, ClientError> {
        self.read(self.document(Method::POST, &["dlq", "purge"], request)).await
    }

    /// A page of namespaces.
    pub(crate) async fn namespaces(
        &self,
        after: Option<&Namespace>,
        limit: u32,
    ) -> Result<Document<NamespaceList>, ClientError> {
        let parameters = [parameter("after", after), parameter("limit", Some(limit))];
        self.read(self.call(Method::GET, &["namespaces"], &parameters)).await
    }

    /// Changes a namespace.
    pub(crate) async fn set_namespace(
        &self,
        name: &Namespace,
        request: &SetNamespace,
    ) -> Result<Document<NamespaceView>, ClientError> {
        let path = ["namespaces", name.as_str()];
        self.read(self.document(Method::PUT, &path, request)).await
    }

    /// Asks to stop a task.
    pub(crate) async fn cancel(&self, id: TaskId) -> Result<Document<Cancelled>, ClientError> {
        self.read(self.call(Method::DELETE, &["tasks", &id.to_string()], &[])).await
    }

    /// Repairs one failed step, named by id or name.
    pub(crate) async fn repair_step(
        &self,
        task: TaskId,
        step: &str,
        request: &RepairStep,
    ) -> Result<Document<Repaired>, ClientError> {
        let path = ["tasks", &task.to_string(), "steps", step];
        self.read(self.document(Method::PATCH, &path, request)).await
    }

    /// Retries what failed of a task, or of one of its batches.
    pub(crate) async fn retry(
        &self,
        task: TaskId,
        batch: Option<BatchId>,
        request: &Retry,
    ) -> Result<Document<Repaired>, ClientError> {
        let (task, batch) = (task.to_string(), batch.map(|batch| batch.to_string()));
        let path = match &batch {
            Some(batch) => vec!["tasks", &task, "batches", batch, "retry"],
            None => vec!["tasks", &task, "retry"],
        };
        self.read(self.document(Method::POST, &path, request)).await
    }

    /// Registers a template; the same one again changes nothing.
    pub(crate) async fn register(
        &self,
        yaml: Vec<u8>,
    ) -> Result<Document<TemplateSummary>, ClientError> {
        let mut call = self.call(Method::POST, &["templates"], &[]);
        call.headers.push(("content-type", "application/yaml".to_owned()));
        call.body = yaml;
        self.read(call).await
    }

    /// What the analyzers of a template would decide. They run while it waits.
    pub(crate) async fn plan(
        &self,
        request: &PlanTemplate,
    ) -> Result<Document<TemplatePlan>, ClientError> {
        let mut call = self.document(Method::POST, &["templates", "plan"], request);
        call.wait = Duration::from_secs(PlanTemplate::MAX_SECONDS);
        self.read(call).await
    }

    /// All templates, or those of a namespace.
    pub(crate) async fn templates(
        &self,
        namespace: Option<&Namespace>,
    ) -> Result<Document<TemplateList>, ClientError> {
        let parameters = [parameter("namespace", namespace)];
        self.read(self.call(Method::GET, &["templates"], &parameters)).await
    }

    /// One version of a template, the newest unless one is named.
    pub(crate) async fn template(
        &self,
        template: &TemplateRef,
    ) -> Result<Document<TemplateView>, ClientError> {
        let path = ["templates", template.namespace.as_str(), template.name.as_str()];
        let parameters = [parameter("version", template.version.as_ref())];
        self.read(self.call(Method::GET, &path, &parameters)).await
    }

    fn call(&self, method: Method, path: &[&str], parameters: &[Parameter]) -> Call {
        let url = url(&self.http.base, path, parameters);
        Call { method, url, headers: Vec::new(), body: Vec::new(), wait: Duration::ZERO }
    }

    fn document(&self, method: Method, path: &[&str], body: &impl Serialize) -> Call {
        let mut call = self.call(method, path, &[]);
        call.headers.push(("content-type", "application/json".to_owned()));
        // Texts and JSON values: writing them cannot fail.
        call.body = serde_json::to_vec(body).unwrap_or_default();
        call
    }

    async fn read<T: DeserializeOwned>(&self, call: Call) -> Result<Document<T>, ClientError> {
        let text = self.http.send(&call).await?;
        match serde_json::from_str(&text) {
            Ok(value) => Ok(Document { text, value }),
            Err(source) => Err(ClientError::Unreadable { url: call.url.to_string(), source }),
        }
    }
}

fn url(base: &Url, path: &[&str], parameters: &[Parameter]) -> Url {
    let mut url = base.clone();
    // The base was checked when the client was made; only `mailto:` and the like have no path.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push("v1").extend(path);
    }
    for (name, value) in parameters {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |base: &str, path: &[&str], parameters: &[Parameter], expect: &str| {
            let base = Url::parse(base).expect("valid");
            assert_eq!(url(&base, path, parameters).as_str(), expect);
        };
        check("http://h:1", &["tasks"], &[], "http://h:1/v1/tasks");
        check("http://h/x/", &["tasks", "a b"], &[], "http://h/x/v1/tasks/a%20b");
        let parameters = [parameter("a", None::<u32>), parameter("b", Some("x&y"))];
        check("http://h", &["t"], &parameters, "http://h/v1/t?b=x%26y");
    }
}
