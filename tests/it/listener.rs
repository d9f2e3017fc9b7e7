//! Whoever listens to domain events, and reports that make some.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tasker_bus::{Bus, Subscription};
use tasker_messages::subject::Request;
use tasker_messages::{
    AttemptFinished, AttemptOutcome, Namespace, OutcomeReport, OutcomeVerdicts, StepFailure,
    StepId, StepKind, Verdict, WorkerId,
};
use tasker_tests::{Api, Cluster, Database};
use uuid::Uuid;

use crate::support::SOON;

/// Hears the domain events of one namespace.
pub(crate) struct Listener {
    pub(crate) api: Api,
    pub(crate) bus: Bus,
    events: Subscription,
    pub(crate) database: Database,
    namespace: &'static str,
}

impl Listener {
    pub(crate) async fn start(cluster: &Cluster, namespace: &'static str) -> anyhow::Result<Self> {
        let (api, bus, database) = (cluster.api()?, cluster.bus().await?, cluster.database()?);
        let events = bus.subscribe(&format!("tasker.event.{namespace}.domain.>"), None).await?;
        // The server has the subscription before its echo.
        bus.publish_confirmed(&[]).await?;
        Ok(Self { api, bus, events, database, namespace })
    }

    /// The next event. What it tells of must be there by then.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Value> {
        let message = tokio::time::timeout(SOON, self.events.next()).await.context("no event")?;
        let message = message.context("the connection was closed")?;
        let event: Value = serde_json::from_slice(&message.payload)?;
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        let query = format!(
            "select (select count(*) from tasker.outcomes
                     where step_id = '{id}' and attempt = {attempt} and state::text = '{state}')
                  + (select count(*) from tasker.failed_attempts
                     where step_id = '{id}' and attempt = {attempt}) as stored",
            id = text("step_id"),
            attempt = event["attempt"],
            state = text("state"),
        );
        ensure!(self.database.row(&query).await?["stored"] == 1, "not stored yet: {event}");
        let subject = format!("tasker.event.{}.domain.{}", self.namespace, text("event"));
        ensure!(message.subject == subject, "on {}: {event}", message.subject);
        ensure!(message.header("Nats-Msg-Id") == Some(text("event_id")), "{event}");
        Ok(event)
    }

    /// So many events, sorted; the next one after them is that of a step which ends now.
    pub(crate) async fn hear(&mut self, number: usize) -> anyhow::Result<Vec<String>> {
        let mut heard = Vec::with_capacity(number);
        for _ in 0..number {
            heard.push(brief(&self.next().await?));
        }
        heard.sort_unstable();
        let end = self.silent_step("end").await?;
        let verdict = self.report(&succeeded(end, 1, &json!(1)), WORKER, true).await?;
        ensure!(verdict == Verdict::Applied, "{verdict:?}");
        let last = brief(&self.next().await?);
        ensure!(last == "told end 1 complete", "after {heard:?} came {last}");
        Ok(heard)
    }

    /// A step of a new task that no worker runs, and that tells when it ends.
    pub(crate) async fn silent_step(&self, name: &str) -> anyhow::Result<Uuid> {
        let template = format!(
            "name: silent_{name}
namespace_name: {}
version: 1.0.0
steps:
  - name: {name}
    handler: {{callable: faulty.scripted, queue: nobody}}
    retry: {{backoff_base_ms: 600000, max_backoff_ms: 600000}}
    publishes_events:
      - {{name: told, condition: always}}
      - {{name: again, condition: retryable_failure}}
",
            self.namespace
        );
        self.api.register(&template).await?;
        let task = self.api.submit(self.namespace, &format!("silent_{name}"), json!({})).await?;
        let view = self.api.read(&format!("/v1/tasks/{task}")).await?;
        Ok(Uuid::parse_str(view["steps"][0]["id"].as_str().context("an id")?)?)
    }

    /// Reports as a worker does; one of an older build does not tell whether steps have events.
    pub(crate) async fn report(
        &self,
        finished: &AttemptFinished,
        worker: u128,
        tells_events: bool,
    ) -> anyhow::Result<Verdict> {
        report(&self.bus, self.namespace, finished, worker, tells_events).await
    }
}

pub(crate) async fn report(
    bus: &Bus,
    namespace: &str,
    finished: &AttemptFinished,
    worker: u128,
    tells_events: bool,
) -> anyhow::Result<Verdict> {
    let report = OutcomeReport {
        worker: WorkerId::from_uuid(Uuid::from_u128(worker)),
        outcomes: vec![finished.clone()],
        takes: 0,
        tells_schemas: true,
        tells_events,
    };
    let subject = Request::Outcome.subject(&Namespace::new(namespace)?);
    let answer: OutcomeVerdicts = bus.request(subject, &report, Duration::from_secs(30)).await?;
    answer.verdicts.first().copied().context("a verdict")
}

/// Who reports, unless a test says otherwise.
pub(crate) const WORKER: u128 = 1;
/// Somebody else.
pub(crate) const OTHER_WORKER: u128 = 2;

pub(crate) fn succeeded(step: Uuid, attempt: u32, result: &Value) -> AttemptFinished {
    AttemptFinished {
        step_id: StepId::from_uuid(step),
        attempt,
        dispatch_seq: 1,
        kind: StepKind::Standard,
        has_schema: false,
        has_events: true,
        execution_ms: 1,
        outcome: AttemptOutcome::Succeeded(to_raw_value(result).expect("JSON")),
    }
}

pub(crate) fn failed(step: Uuid, attempt: u32, error_type: &str) -> AttemptFinished {
    let failure = StepFailure {
        code: "REPORTED".to_owned(),
        message: "as reported".to_owned(),
        retryable: true,
        error_type: error_type.to_owned(),
        retry_after_ms: None,
        context: Value::Null,
    };
    let outcome = AttemptOutcome::Failed(failure);
    AttemptFinished { outcome, ..succeeded(step, attempt, &Value::Null) }
}

pub(crate) fn brief(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    format!("{} {} {} {}", text("event"), text("step"), event["attempt"], text("state"))
}
