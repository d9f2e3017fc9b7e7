use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Value, json};

use crate::Task;

/// A client of the HTTP API that shows answers as they are. Not to be taken from one test, which
/// has a runtime of its own, to another.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// An answer of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub content_type: String,
    /// The day that the server takes for today, as HTTP writes it.
    pub day: Option<String>,
    /// When to try again, where the answer says so.
    pub retry_after: Option<String>,
    /// The body; null if it is not JSON.
    pub body: Value,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The stable code of a refusal; empty if there is none.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// The longest time that the server is asked to wait.
const POLL: u64 = 20;
/// Longest answer beyond that.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// For so long a cluster may not answer because an orchestrator is being replaced.
const OUTAGE_LIMIT: Duration = Duration::from_secs(30);

impl Api {
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT).build()?;
        Ok(Self { http, url: url.to_owned(), token: None })
    }

    /// The same with another token, or none.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// What it says who it is with.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Sends one request, once.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &[u8])],
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(HeaderName::try_from(*name)?, HeaderValue::from_bytes(value)?);
        }
        let method = Method::from_bytes(method.as_bytes())?;
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.headers(all).body(body).send().await?;
        let status = answer.status().as_u16();
        let content_type = answer.headers().get(CONTENT_TYPE);
        let content_type =
            content_type.and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let date = answer.headers().get(DATE).and_then(|v| v.to_str().ok());
        let day = date.and_then(|date| date.get(.."Sat, 28 Nov 2026".len())).map(str::to_owned);
        let retry_after = answer.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|v| v.to_str().ok()).map(str::to_owned);
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Answer { status, content_type, day, retry_after, body, text })
    }

    /// Reads something, again and again while the cluster does not answer.
    ///
    /// # Errors
    /// If there is no answer for 30 s.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let begun = Instant::now();
        loop {
            match self.send("GET", path, &[], Vec::new()).await {
                Ok(answer) if answer.status != 503 => return Ok(answer),
                other if begun.elapsed() > OUTAGE_LIMIT => {
                    return other.and_then(|answer| bail!("{path}: {answer:?}"));
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Reads a document that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub async fn read(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.get(path).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text);
        Ok(answer.body)
    }

    /// Submits a document as JSON, with an idempotency key if there is one.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post_task(&self, document: &Value, key: Option<&str>) -> anyhow::Result<Answer> {
        let mut headers = vec![("content-type", b"application/json".as_slice())];
        headers.extend(key.map(|key| ("idempotency-key", key.as_bytes())));
        self.send("POST", "/v1/tasks", &headers, document.to_string().into_bytes()).await
    }

    /// Submits a task that must be accepted and returns its id.
    ///
    /// # Errors
    /// If it is not.
    pub async fn submit(
        &self,
        namespace: &str,
        name: &str,
        context: Value,
    ) -> anyhow::Result<String> {
        let document = json!({"namespace": namespace, "name": name, "context": context});
        let answer = self.post_task(&document, None).await?;
        ensure!(answer.status == 201, "{document}: {} {}", answer.status, answer.text);
        ensure!(answer.body["created"] == true, "{}", answer.text);
        Ok(answer.body["id"].as_str().context("an id")?.to_owned())
    }

    /// Waits until a task has ended and returns it.
    ///
    /// # Errors
    /// If it does not end within the limit.
    pub async fn wait(&self, id: &str, limit: Duration) -> anyhow::Result<Task> {
        let begun = Instant::now();
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            let wait = left.as_secs().clamp(1, POLL);
            let task = Task::new(self.read(&format!("/v1/tasks/{id}?wait={wait}")).await?)?;
            if task.has_ended() {
                return Ok(task);
            }
            if begun.elapsed() >= limit {
                bail!("task {id} has not ended within {limit:?}: {}", self.summary(id).await?);
            }
        }
    }

    /// Submits a task and waits for its end.
    ///
    /// # Errors
    /// If it is not accepted or does not end within the limit.
    pub async fn run(
        &self,
        namespace: &str,
        name: &str,
        context: Value,
        limit: Duration,
    ) -> anyhow::Result<Task> {
        let id = self.submit(namespace, name, context).await?;
        self.wait(&id, limit).await
    }

    /// A task and its batches in numbers.
    ///
    /// # Errors
    /// If there is none.
    pub async fn summary(&self, id: &str) -> anyhow::Result<Value> {
        self.read(&format!("/v1/tasks/{id}/summary")).await
    }

    /// All steps of a task, page by page.
    ///
    /// # Errors
    /// If a page cannot be read or a step comes twice.
    pub async fn all_steps(&self, id: &str, page: u32) -> anyhow::Result<Vec<Value>> {
        let mut all: Vec<Value> = Vec::new();
        let mut after = String::new();
        loop {
            let mut answer =
                self.read(&format!("/v1/tasks/{id}/steps?limit={page}{after}")).await?;
            let Value::Array(steps) = answer["steps"].take() else { bail!("no steps: {answer}") };
            ensure!(steps.len() <= page as usize, "{} steps on a page of {page}", steps.len());
            all.extend(steps);
            match answer["next"].as_str() {
                None => return Ok(all),
                Some(next) => {
                    let last = all.last().and_then(|step| step["id"].as_str());
                    ensure!(Some(next) == last, "the next page begins after {next}, not {last:?}");
                    after = format!("&after={next}");
                }
            }
        }
    }

    /// Registers a template that must be accepted.
    ///
    /// # Errors
    /// If it is not.
    pub async fn register(&self, yaml: &str) -> anyhow::Result<()> {
        let answer = self.post_template(yaml.as_bytes()).await?;
        ensure!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.text);
        Ok(())
    }

    /// Sends a template.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post_template(&self, yaml: &[u8]) -> anyhow::Result<Answer> {
        let headers = [("content-type", b"application/yaml".as_slice())];
        self.send("POST", "/v1/templates", &headers, yaml.to_vec()).await
    }
}
