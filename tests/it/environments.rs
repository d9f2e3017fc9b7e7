//! `environments`, and the older spelling of retries: what the template says is what happens.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tasker_tests::Cluster;

use crate::support::{SOON, number};

const TEMPLATE: &str = "name: overridden
namespace_name: faulty
version: 1.0.0
environments:
  staging:
    steps:
      - {name: ALL, handler: {initialization: {pool: {size: 2}}}, timeout_seconds: 30}
      - {name: fails, retry: {max_attempts: 1}}
      - {name: sleeps, timeout_seconds: 0.3, retry: {retryable: false}}
steps:
  - name: says
    handler: {callable: faulty.methods, initialization: {pool: {size: 1, kind: k}, level: 3}}
  - name: fails
    handler: {callable: faulty.always_fail}
    retry: {max_attempts: 3, backoff: none}
  - name: sleeps
    handler: {callable: faulty.sleep}
";

/// The configuration that `says` saw, the attempts of `fails`, and how `sleeps` ended.
async fn run(cluster: &Cluster) -> anyhow::Result<(Value, u64, Value)> {
    let api = cluster.api()?;
    api.register(TEMPLATE).await?;
    let task = api.run("faulty", "overridden", json!({"sleep_ms": 1_000}), SOON).await?;
    let attempts = number(task.step("fails")?, "attempt")?;
    let sleeps = task.step("sleeps")?["state"].clone();
    Ok((task.result("says")?["config"].clone(), attempts, sleeps))
}

#[tokio::test]
async fn an_environment_counts_where_it_is_set() -> anyhow::Result<()> {
    let shared = Cluster::shared().await?;
    let config = json!({"pool": {"size": 1, "kind": "k"}, "level": 3});
    assert_eq!(run(&shared).await?, (config, 3, json!("complete")));
    let settings = "[node]\nenvironment = \"staging\"\n";
    let staging = Cluster::with_settings(1, 1, settings).await?;
    let config = json!({"pool": {"size": 2, "kind": "k"}, "level": 3});
    assert_eq!(run(&staging).await?, (config, 1, json!("error")));
    Ok(())
}

#[tokio::test]
async fn lint_checks_every_environment() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let broken = TEMPLATE.replace("name: fails, retry", "name: fials, retry");
    let path = cluster.scratch().write("environments.yaml", broken)?;
    let ended = cluster.tool().run(&["template", "lint", &path]).await?;
    fs::remove_file(&path)?;
    assert_eq!(ended.code, 6, "{} {}", ended.stdout, ended.stderr);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(said.contains("environments.staging.steps[1].name"), "{said}");
    assert!(said.contains("did you mean `fails`?"), "{said}");
    Ok(())
}

#[tokio::test]
async fn retries_in_their_older_spelling() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    // Pauses of 20 ms and two seconds; without the multiplier they were 20 and 40 ms.
    let template = "name: older
namespace_name: faulty
version: 1.0.0
steps:
  - name: run
    handler: {callable: faulty.always_fail}
    retry: {backoff_base_ms: 20, jitter: false}
    lifecycle: {max_retries: 2, backoff_multiplier: 100}
";
    api.register(template).await?;
    let started = Instant::now();
    let task = api.run("faulty", "older", json!({}), SOON).await?;
    assert_eq!(task.state(), "error", "{}", task.view);
    assert_eq!(number(task.step("run")?, "attempt")?, 3, "{}", task.view);
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    Ok(())
}
