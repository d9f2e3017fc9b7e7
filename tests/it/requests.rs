//! Reads of the API: what is asked wrongly is refused, what is asked rightly comes in pages.

use std::time::Duration;

use serde_json::{Value, json};
use tasker_messages::code;
use tasker_tests::{Cluster, until};

use crate::support::{SOON, ended_members};

#[tokio::test]
async fn broken_requests() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let id = api.run("bench", "chain", json!({"start": 1}), SOON).await?.id().to_owned();
    let nobody = "0190a0a0-0000-7000-8000-000000000000";
    let (invalid, none) = (code::INVALID_REQUEST, code::NOT_FOUND);
    let no_task = code::TASK_NOT_FOUND;
    let table: Vec<(&str, String, u16, &str)> = vec![
        ("GET", "/v1/tasks?limit=0".into(), 400, invalid),
        ("GET", "/v1/tasks?limit=1001".into(), 400, invalid),
        ("GET", "/v1/tasks?limit=-1".into(), 400, invalid),
        ("GET", "/v1/tasks?limit=ten".into(), 400, invalid),
        ("GET", "/v1/tasks?limit=".into(), 400, invalid),
        ("GET", "/v1/tasks?limit=99999999999".into(), 400, invalid),
        ("GET", "/v1/tasks?limit=1&limit=1".into(), 400, invalid),
        ("GET", "/v1/tasks?limt=1".into(), 400, invalid),
        ("GET", "/v1/tasks?state=Complete".into(), 400, invalid),
        ("GET", "/v1/tasks?state=%00".into(), 400, invalid),
        ("GET", "/v1/tasks?namespace=Upper".into(), 400, invalid),
        ("GET", "/v1/tasks?after=5".into(), 400, invalid),
        ("GET", "/v1/tasks/5".into(), 400, invalid),
        ("GET", "/v1/tasks/%00".into(), 400, invalid),
        ("GET", format!("/v1/tasks/{id}?wait=x"), 400, invalid),
        ("GET", format!("/v1/tasks/{id}?wait=-1"), 400, invalid),
        ("GET", format!("/v1/tasks/{id}?wiat=1"), 400, invalid),
        ("GET", format!("/v1/tasks/{id}/steps?limit=0"), 400, invalid),
        ("GET", format!("/v1/tasks/{id}/steps?after=x"), 400, invalid),
        ("GET", format!("/v1/tasks/{id}/steps?page=2"), 400, invalid),
        ("GET", format!("/v1/tasks/{nobody}"), 404, no_task),
        ("GET", format!("/v1/tasks/{nobody}?wait=30"), 404, no_task),
        ("GET", format!("/v1/tasks/{nobody}/steps"), 404, no_task),
        ("GET", format!("/v1/tasks/{nobody}/summary"), 404, no_task),
        ("DELETE", format!("/v1/tasks/{nobody}"), 404, no_task),
        ("DELETE", "/v1/tasks/5".into(), 400, invalid),
        ("DELETE", format!("/v1/tasks/{id}"), 409, code::TASK_ENDED),
        ("GET", "/v1/templates?name=x".into(), 400, invalid),
        ("GET", "/v1/templates?namespace=*".into(), 400, invalid),
        ("GET", "/v1/templates/bench/none".into(), 404, code::TEMPLATE_NOT_FOUND),
        ("GET", "/v1/templates/bench/chain?version=9.9.9".into(), 404, code::TEMPLATE_NOT_FOUND),
        ("GET", "/v1/templates/Bench/chain".into(), 400, invalid),
        ("GET", "/v1/templates/bench/chain?v=1".into(), 400, invalid),
        ("GET", "/v1/nothing".into(), 404, none),
        ("GET", "/".into(), 404, none),
        ("GET", "/v1/tasks/".into(), 404, none),
        ("GET", "//v1/tasks".into(), 404, none),
        ("PUT", "/v1/tasks".into(), 405, none),
        ("DELETE", "/v1/tasks".into(), 405, none),
        ("POST", format!("/v1/tasks/{id}"), 405, none),
        ("PATCH", format!("/v1/tasks/{id}"), 405, none),
        ("POST", "/health".into(), 405, none),
    ];
    check(&cluster, table).await
}

/// Texts that no name can be, and Postgres cannot hold: the fault is the client's.
#[tokio::test]
async fn hostile_paths() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let mut wrong = String::new();
    for path in [
        "/v1/tasks/%FF",
        "/v1/tasks/%FF/steps",
        "/v1/tasks?state=%FF",
        "/v1/tasks?namespace=%00",
        "/v1/templates?namespace=%00",
        "/v1/templates/bench/%00",
        "/v1/templates/bench/%FF",
        "/v1/templates/%00/chain",
        "/v1/templates/bench/a%20b",
        "/v1/templates/bench/chain?version=%00",
        "/v1/templates/bench/chain?version=%27",
    ] {
        let answer = api.send("GET", path, &[], Vec::new()).await?;
        let is_refusal = matches!(answer.status, 400 | 404)
            && answer.content_type == "application/problem+json"
            && !answer.code().is_empty();
        if !is_refusal {
            wrong +=
                &format!("{path}: {} {} {}\n", answer.status, answer.content_type, answer.text);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    Ok(())
}

async fn check(cluster: &Cluster, table: Vec<(&str, String, u16, &str)>) -> anyhow::Result<()> {
    let api = cluster.api()?;
    let mut wrong = String::new();
    for (method, path, status, code) in table {
        let answer = api.send(method, &path, &[], Vec::new()).await?;
        let got = (answer.status, answer.code(), answer.content_type.as_str());
        let expect = (status, code, "application/problem+json");
        if got != expect {
            wrong +=
                &format!("{method} {path}\n got    {got:?} {}\n expect {expect:?}\n", answer.text);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    Ok(())
}

/// The state is what people look at while they wait.
#[tokio::test]
async fn a_task_is_in_progress_while_its_batch_runs() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let id = api.submit("faulty", "slow_batch", json!({"n": 200, "sleep_ms": 1_000})).await?;
    until("some members have ended", SOON, async || {
        Ok(ended_members(&api.summary(&id).await?) >= 10)
    })
    .await?;
    assert_eq!(api.summary(&id).await?["state"], "in_progress");
    assert_eq!(api.wait(&id, SOON).await?.state(), "complete");
    Ok(())
}

#[tokio::test]
async fn heartbeats_tell_what_runs_for_seconds() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    // Long enough to be told also where it begins late, because others take the slots for seconds.
    const RUNS: Duration = Duration::from_secs(12);
    let id = api.submit("faulty", "sleep", json!({"sleep_ms": RUNS.as_millis() as u64})).await?;
    until("the step is known to run", SOON, async || {
        let task = api.read(&format!("/v1/tasks/{id}")).await?;
        Ok(task["steps"][0]["state"] == "in_progress")
    })
    .await?;
    assert_eq!(api.summary(&id).await?["state"], "in_progress");
    assert_eq!(api.wait(&id, SOON).await?.state(), "complete");
    Ok(())
}

#[tokio::test]
async fn tasks_come_in_pages_newest_first() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    // A namespace that no other test uses.
    let yaml = "name: alone\nnamespace_name: paging\nversion: 1.0.0\nsteps:\n  - name: only\n    \
                handler: {callable: faulty.return_context}\n";
    api.register(yaml).await?;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(api.run("paging", "alone", json!({}), SOON).await?.id().to_owned());
    }
    ids.reverse();
    let mut seen: Vec<String> = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/tasks?namespace=paging&state=complete&limit=2{after}");
        let page = api.read(&path).await?;
        let tasks = page["tasks"].as_array().cloned().unwrap_or_default();
        assert!(tasks.len() <= 2, "{page}");
        for task in &tasks {
            let named = (&task["namespace"], &task["name"], &task["version"], &task["state"]);
            let expect = (&json!("paging"), &json!("alone"), &json!("1.0.0"), &json!("complete"));
            assert_eq!(named, expect);
            seen.extend(task["id"].as_str().map(str::to_owned));
        }
        match &page["next"] {
            Value::String(next) => after = format!("&after={next}"),
            _ => break,
        }
    }
    assert_eq!(seen, ids);
    let none = api.read("/v1/tasks?namespace=paging&state=error").await?;
    assert_eq!(none, json!({"tasks": [], "next": null}));
    Ok(())
}

#[tokio::test]
async fn health_readiness_and_metrics() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.run("bench", "chain", json!({"start": 1}), SOON).await?;
    assert_eq!(api.read("/health").await?, json!({"status": "alive"}));
    assert_eq!(api.read("/ready").await?["status"], "ready");
    let metrics = api.get("/metrics").await?;
    assert_eq!(metrics.status, 200);
    assert!(metrics.content_type.starts_with("text/plain"), "{}", metrics.content_type);
    let is_metric = |line: &str| {
        line.starts_with('#')
            || line.is_empty()
            || line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok())
    };
    let odd: Vec<&str> = metrics.text.lines().filter(|line| !is_metric(line)).collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert!(metrics.text.contains("tasker_"), "{}", metrics.text);
    Ok(())
}
