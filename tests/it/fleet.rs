//! Workers that do not have the same handlers, as during a rolling upgrade.

use std::time::Duration;

use serde_json::{Value, json};
use tasker_config::Loader;
use tasker_sdk::{HandlerRegistry, StepContext, StepError, StepResult};
use tasker_tests::{Cluster, until};
use tasker_worker_node::WorkerNode;

use crate::support::SOON;

/// One try only: a worker without the handler must not use it up.
const TEMPLATE: &str = "name: needs_the_new_build
namespace_name: fleet
version: 1.0.0
steps:
  - {name: greet, handler: {callable: fleet.greet}, retry: {max_attempts: 1}}
";

async fn greet(ctx: StepContext) -> Result<StepResult, StepError> {
    Ok(json!({"tries": ctx.tries()}).into())
}

/// A worker of one build, in this process.
async fn worker(cluster: &Cluster, handlers: HandlerRegistry) -> anyhow::Result<WorkerNode> {
    let mut settings = Loader::new()?.load()?.settings;
    settings.nats.url = cluster.state()?.nats_url;
    settings.worker.namespaces = vec!["fleet".to_owned()];
    Ok(WorkerNode::start(settings, handlers, "build").await?)
}

#[tokio::test]
async fn a_step_finds_the_worker_that_has_its_handler() -> anyhow::Result<()> {
    // Workers of our own only: those of the examples have resolvers, of which nobody knows what they
    // find.
    let cluster = Cluster::start(1, 0).await?;
    let api = cluster.api()?;
    api.register(TEMPLATE).await?;
    let old = worker(&cluster, HandlerRegistry::new().register("fleet.other", greet)).await?;
    until("the old build is known", SOON, async || {
        let workers = api.read("/v1/workers?namespace=fleet").await?;
        Ok(workers["workers"][0]["live"] == true)
    })
    .await?;
    let document = json!({"namespace": "fleet", "name": "needs_the_new_build", "context": {}});
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let answer = api.post_task(&document, None).await?;
        let warnings = answer.body["warnings"].as_array().cloned().unwrap_or_default();
        let warned =
            warnings.iter().any(|w| w.as_str().is_some_and(|w| w.contains("`fleet.greet`")));
        assert!(answer.status == 201 && warned, "{}", answer.text);
        tasks.push(answer.body["id"].as_str().unwrap_or_default().to_owned());
    }
    // It pulls the queue and cannot run what comes from it.
    until("the first task says why", SOON, async || {
        let why = api.read(&format!("/v1/tasks/{}/why", tasks[0])).await?;
        let reason = &why["reasons"][0];
        let names_it = reason["message"].as_str().is_some_and(|m| m.contains("`fleet.greet`"));
        Ok(reason["state"] == "waiting_for_retry" && reason["code"] == "no_handler" && names_it)
    })
    .await?;
    let new = worker(&cluster, HandlerRegistry::new().register("fleet.greet", greet)).await?;
    for task in &tasks {
        let task = api.wait(task, SOON).await?;
        assert_eq!(task.state(), "complete", "{}", task.view);
        assert_eq!(task.result("greet")?, &json!({"tries": 0}), "nothing was charged");
    }
    // Once its heartbeat is known, nobody is warned any more, and what meets the old build goes to the
    // new one soon.
    until("no warning", Duration::from_secs(20), async || {
        let answer = api.post_task(&document, None).await?;
        Ok(answer.body["warnings"] == Value::Null)
    })
    .await?;
    old.stop().await;
    new.stop().await;
    Ok(())
}
