//! Workers that are asked to take nothing more.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tasker_config::Loader;
use tasker_messages::code;
use tasker_sdk::{
    Batchable, CursorRange, HandlerRegistry, StepContext, StepError, StepHandler, StepResult,
};
use tasker_tests::{Api, Cluster, Ended, until};
use tasker_worker_node::WorkerNode;

use crate::support::SOON;

const TEMPLATE: &str = "name: batch
namespace_name: drained
version: 1.0.0
steps:
  - {name: split, type: batchable, handler: {callable: drained.split}}
  - name: work
    type: batch_worker
    dependencies: [split]
    handler: {callable: drained.work}
    retry: {max_attempts: 1}
  - {name: sum, type: deferred_convergence, dependencies: [work], handler: {callable: drained.sum}}
";
const WORKERS: &str = "/v1/workers?namespace=drained";

/// What ran: worker, step, attempt, tries.
type Log = Arc<Mutex<Vec<(&'static str, String, u32, u32)>>>;

struct Split;

impl Batchable for Split {}

impl StepHandler for Split {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let n = ctx.input_json()["n"].as_u64().unwrap_or_default();
        self.batch_range_success(
            "work",
            CursorRange { start: 0, end: n, batch_size: 1 },
            n,
            Value::Null,
        )
    }
}

/// A worker of this process that writes down what it runs.
async fn worker(cluster: &Cluster, name: &'static str, log: &Log) -> anyhow::Result<WorkerNode> {
    let mut settings = Loader::new()?.load()?.settings;
    settings.nats.url = cluster.state()?.nats_url;
    settings.worker.namespaces = vec!["drained".to_owned()];
    settings.worker.slots = 4;
    let (members, log) = (Arc::clone(log), Arc::clone(log));
    let run = move |ctx: StepContext| {
        let entry = (name, ctx.step_id().to_string(), ctx.attempt(), ctx.tries());
        members.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        async move {
            let sleep_ms = ctx.input_json()["sleep_ms"].as_u64().unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(sleep_ms)).await;
            Ok::<StepResult, StepError>(Value::Null.into())
        }
    };
    let sum = move |ctx: StepContext| {
        let entry = (name, ctx.step_id().to_string(), ctx.attempt(), ctx.tries());
        log.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        async { Ok::<StepResult, StepError>(Value::Null.into()) }
    };
    let handlers = HandlerRegistry::new()
        .register("drained.split", Split)
        .register("drained.work", run)
        .register("drained.sum", sum);
    Ok(WorkerNode::start(settings, handlers, name).await?)
}

fn ran(log: &Log, name: &str) -> usize {
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.iter().filter(|(worker, ..)| *worker == name).count()
}

/// The worker of this name as the cluster lists it.
async fn view(api: &Api, name: &str) -> anyhow::Result<Option<Value>> {
    let listed = api.read(WORKERS).await?;
    let all = listed["workers"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().find(|worker| worker["name"] == name))
}

async fn until_listed(api: &Api, name: &str, key: &str) -> anyhow::Result<String> {
    until(&format!("{name} is {key}"), SOON, async || {
        Ok(view(api, name).await?.is_some_and(|worker| worker[key] == true))
    })
    .await?;
    let view = view(api, name).await?.context("it was there")?;
    Ok(view["id"].as_str().context("an id")?.to_owned())
}

async fn drain(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Ended> {
    let url = cluster.state()?.url;
    let first = ["--url", &url, "worker", "drain", "--by", "op", "--reason", "r", "-o", "json"];
    cluster.tool().run(&[first.as_slice(), arguments].concat()).await
}

#[tokio::test]
async fn a_worker_that_drains_loses_nothing_and_gets_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::start(2, 0).await?;
    let (api, log) = (cluster.api()?, Log::default());
    api.register(TEMPLATE).await?;
    let (one, two) = (worker(&cluster, "one", &log).await?, worker(&cluster, "two", &log).await?);
    let task = api.submit("drained", "batch", json!({"n": 32, "sleep_ms": 1_500})).await?;
    until("both work", SOON, async || Ok(ran(&log, "one") >= 4 && ran(&log, "two") >= 4)).await?;
    let id = until_listed(&api, "one", "live").await?;
    let path = format!("/v1/workers/{id}/drain");
    let asked = api.send("POST", &path, &[], br#"{"reason": "a test"}"#.to_vec()).await?;
    assert_eq!(
        (asked.status, &asked.body["workers"][0]["id"]),
        (202, &json!(id)),
        "{}",
        asked.text
    );
    until_listed(&api, "one", "draining").await?;
    let seen = view(&api, "one").await?.context("it is there")?;
    assert_eq!((&seen["live"], &seen["drained"]), (&json!(true), &json!(false)), "{seen}");
    let at_most = ran(&log, "one");
    // To ask twice is to ask once.
    let ended = drain(&cluster, &[&id, "--wait"]).await?;
    assert_eq!(
        (ended.code, &ended.json()?["workers"][0]["drained"]),
        (0, &json!(true)),
        "{ended:?}"
    );
    one.drained().await;
    assert_eq!(ran(&log, "one"), at_most, "it began another step");
    let task = api.wait(&task, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    assert_eq!(ran(&log, "one"), at_most, "it began another step");
    let all = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let steps: HashSet<&String> = all.iter().map(|(_, step, ..)| step).collect();
    assert_eq!((all.len(), steps.len()), (33, 33), "each member and the sum once: {all:?}");
    assert!(all.iter().all(|(_, _, attempt, tries)| (*attempt, *tries) == (1, 0)), "{all:?}");
    let next = api.run("drained", "batch", json!({"n": 8, "sleep_ms": 1}), SOON).await?;
    assert_eq!((next.state(), ran(&log, "one")), ("complete", at_most));
    let database = cluster.database()?;
    let audited = "select count(*) from tasker.admin_actions where action = 'drain_worker'
                   and namespace = 'drained' and reason like 'worker % (one): %'";
    assert_eq!(database.row(audited).await?["count"], 2);
    // The first step of a queue that is made just now may have been delivered to a request of before.
    let charged = "select name, attempt, tries from tasker.steps
                   where (tries > 0 or attempt > 1) and name <> 'split'";
    assert_eq!(database.rows(charged).await?, json!([]));

    // What the worker was told is lost: its next heartbeats are answered.
    until_listed(&api, "two", "live").await?;
    let wish = "update tasker.workers set drain_asked_at = now() where name = 'two'";
    database.run(wish).await?;
    until_listed(&api, "two", "drained").await?;
    let waiting = api.submit("drained", "batch", json!({"n": 8, "sleep_ms": 1})).await?;
    let document = json!({"namespace": "drained", "name": "batch", "context": {"n": 1}});
    until("nobody offers the handlers", SOON, async || {
        let answer = api.post_task(&document, None).await?;
        Ok(answer.body["warnings"].to_string().contains("`drained.split`"))
    })
    .await?;
    // One that is started again is another one.
    one.stop().await;
    let again = worker(&cluster, "again", &log).await?;
    assert_eq!(api.wait(&waiting, SOON).await?.state(), "complete");
    assert_ne!(until_listed(&api, "again", "live").await?, id);
    again.stop().await;
    two.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_worker_leaves_when_it_has_drained_if_it_is_to() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, 0).await?;
    let (api, nats) = (cluster.api()?, cluster.state()?.nats_url);
    let run = ["worker", "run", "--nats-url", &nats, "--namespace", "drained", "--name", "leaver"];
    let arguments = [run.as_slice(), &["--set", "worker.exit_when_drained=true"]].concat();
    let leaving = async {
        let id = until_listed(&api, "leaver", "live").await?;
        drain(&cluster, &[&id, "--wait", "--timeout", "30"]).await
    };
    let (process, drained) = tokio::try_join!(cluster.tool().run(&arguments), leaving)?;
    assert_eq!((process.code, drained.code), (0, 0), "{process:?} {drained:?}");
    Ok(())
}

#[tokio::test]
async fn whom_nobody_can_ask() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, 0).await?;
    let (api, log) = (cluster.api()?, Log::default());
    let worker = worker(&cluster, "one", &log).await?;
    let id = until_listed(&api, "one", "live").await?;
    let body = br#"{"reason": "r"}"#;
    let post = async |id: &str, body: &[u8]| {
        let answer =
            api.send("POST", &format!("/v1/workers/{id}/drain"), &[], body.to_vec()).await?;
        anyhow::Ok((answer.status, answer.code().to_owned()))
    };
    let unknown = "0190a0a0-0000-7000-8000-000000000002";
    assert_eq!(post(unknown, body).await?, (404, code::WORKER_NOT_FOUND.to_owned()));
    assert_eq!(api.get(&format!("/v1/workers/{unknown}")).await?.code(), code::WORKER_NOT_FOUND);
    assert_eq!(post("one", body).await?, (400, code::INVALID_REQUEST.to_owned()));
    assert_eq!(post(&id, b"{}").await?, (400, code::MISSING_KEY.to_owned()));
    assert_eq!(post(&id, br#"{"reason": " "}"#).await?, (400, code::INVALID_VALUE.to_owned()));
    assert_eq!(drain(&cluster, &[unknown]).await?.code, 4);
    worker.stop().await;
    let database = cluster.database()?;
    let age = "update tasker.workers set last_beat_at = now() - interval '1 minute'";
    database.run(age).await?;
    assert_eq!(post(&id, body).await?, (409, code::WORKER_SILENT.to_owned()));
    let audited = "select count(*) from tasker.admin_actions where action = 'drain_worker'";
    assert_eq!(database.row(audited).await?["count"], 0, "nothing was done");
    Ok(())
}
