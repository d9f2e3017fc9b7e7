//! Why a task is where it is, a batch held against its members, and who works.

use std::time::Duration;

use serde_json::{Value, json};
use tasker_tests::{Api, Cluster, until};

use crate::support::SOON;

/// A step of each kind that does not end soon.
const TEMPLATE: &str = "name: stands_still
namespace_name: faulty
version: 1.0.0
steps:
  - {name: unserved, handler: {callable: faulty.scripted, queue: nobody_pulls_this}}
  - {name: sleeps, handler: {callable: faulty.scripted}}
  - name: stumbles
    handler: {callable: faulty.scripted}
    retry: {backoff: linear, backoff_base_ms: 600000, jitter: false}
  - {name: breaks, handler: {callable: faulty.scripted}}
  - {name: behind, dependencies: [sleeps], handler: {callable: faulty.scripted}}
  - {name: held_up, dependencies: [breaks], handler: {callable: faulty.scripted}}
";

async fn reasons(api: &Api, task: &str) -> anyhow::Result<Vec<Value>> {
    let why = api.read(&format!("/v1/tasks/{task}/why")).await?;
    Ok(why["reasons"].as_array().cloned().unwrap_or_default())
}

fn short(reasons: &[Value]) -> Vec<String> {
    let text = |r: &Value, key: &str| r[key].as_str().unwrap_or_default().to_owned();
    reasons
        .iter()
        .map(|r| format!("{} {} {}", text(r, "step"), text(r, "state"), text(r, "code")))
        .collect()
}

#[tokio::test]
async fn each_step_says_what_it_waits_for() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(TEMPLATE).await?;
    let script = json!({"sleeps": {"sleep_ms": 120_000}, "stumbles": {"failures": 9},
        "breaks": {"failures": 9, "permanent": true}});
    let id = api.submit("faulty", "stands_still", json!({"script": script})).await?;
    let expect = [
        "unserved enqueued no_worker",
        "sleeps in_progress running",
        "stumbles waiting_for_retry waits_for_retry",
        "breaks error failed",
        "behind pending waits_for_parents",
        "held_up pending blocked_by_failures",
    ];
    until(
        "every step stands still",
        SOON,
        async || Ok(short(&reasons(&api, &id).await?) == expect),
    )
    .await?;
    let all = reasons(&api, &id).await?;
    let message = |n: usize| all[n]["message"].as_str().unwrap_or_default();
    assert!(message(0).contains("queue `nobody_pulls_this`"), "{}", message(0));
    assert!(message(1).contains("by worker "), "{}", message(1));
    assert!(message(2).contains("failure 1 of `stumbles` [FAILED_ON_PURPOSE]"), "{}", message(2));
    assert!(message(3).contains("failure 1 of `breaks`"), "{}", message(3));
    assert_eq!(
        (&all[4]["waits_for"], &all[5]["waits_for"]),
        (&json!(["sleeps"]), &json!(["breaks"]))
    );
    // Of a cancelled task, what failed by itself is still told apart.
    let cancelled = api.send("DELETE", &format!("/v1/tasks/{id}"), &[], Vec::new()).await?;
    assert_eq!(cancelled.status, 202, "{}", cancelled.text);
    let codes: Vec<Value> =
        reasons(&api, &id).await?.iter().map(|reason| reason["code"].clone()).collect();
    assert_eq!(
        json!(codes),
        json!(["cancelled", "cancelled", "cancelled", "failed", "cancelled", "cancelled"])
    );
    Ok(())
}

#[tokio::test]
async fn a_complete_task_has_no_reasons_and_its_batch_is_sound() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let task = api.run("bench", "fan_out", json!({"n": 37}), SOON).await?;
    assert_eq!(reasons(&api, task.id()).await?, Vec::<Value>::new());
    let batch = task.view["batches"][0]["id"].as_str().unwrap_or_default().to_owned();
    let audit = api.read(&format!("/v1/batches/{batch}/audit")).await?;
    let names: Vec<&Value> =
        audit["checks"].as_array().into_iter().flatten().map(|check| &check["name"]).collect();
    assert_eq!(json!(names), json!(["members", "counters", "attempts", "batch_ids", "ranges"]));
    assert_eq!(audit["ok"], true, "{audit}");
    assert_eq!(audit["batch"], api.read(&format!("/v1/batches/{batch}")).await?);
    assert_eq!(audit["batch"], task.view["batches"][0]);
    let step = api.read(&format!("/v1/tasks/{}/steps/add_one_007", task.id())).await?;
    assert_eq!((&step["step"]["state"], &step["attempts"]), (&json!("complete"), &json!([])));
    assert_eq!(step["step"]["inputs"]["cursor"]["start_cursor"], 6);
    Ok(())
}

#[tokio::test]
async fn nobody_is_told_about_what_is_not_there() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let nobody = "0190a0a0-0000-7000-8000-000000000000";
    let table = [
        (format!("/v1/tasks/{nobody}/why"), 404, "TASK_NOT_FOUND"),
        ("/v1/tasks/x/why".to_owned(), 400, "INVALID_REQUEST"),
        (format!("/v1/tasks/{nobody}/steps/a"), 404, "STEP_NOT_FOUND"),
        (format!("/v1/tasks/{nobody}/steps/{nobody}"), 404, "STEP_NOT_FOUND"),
        (format!("/v1/batches/{nobody}"), 404, "BATCH_NOT_FOUND"),
        (format!("/v1/batches/{nobody}/audit"), 404, "BATCH_NOT_FOUND"),
        ("/v1/batches/x/audit".to_owned(), 400, "INVALID_REQUEST"),
        ("/v1/workers?namespace=A".to_owned(), 400, "INVALID_REQUEST"),
        ("/v1/workers?limit=0".to_owned(), 400, "INVALID_REQUEST"),
        ("/v1/workers?name=x".to_owned(), 400, "INVALID_REQUEST"),
    ];
    for (path, status, code) in table {
        let answer = api.get(&path).await?;
        assert_eq!((answer.status, answer.code()), (status, code), "{path}: {}", answer.text);
    }
    Ok(())
}

/// The workers of the cluster are listed, each in every namespace that it serves.
#[tokio::test]
async fn workers_are_listed() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    // A worker serves a namespace from its first queue on.
    api.run("bench", "chain", json!({"start": 1}), SOON).await?;
    until("a live worker that offers `bench.add_one`", Duration::from_secs(30), async || {
        let listed = api.read("/v1/workers?namespace=bench").await?;
        let workers = listed["workers"].as_array().cloned().unwrap_or_default();
        Ok(workers.iter().any(|worker| {
            let callables = worker["callables"].as_array().cloned().unwrap_or_default();
            worker["live"] == true
                && worker["draining"] == false
                && worker["namespace"] == "bench"
                && worker["queues"][0]["queue"] == "default"
                && worker["queues"][0]["slots"].as_u64() > Some(0)
                && callables.contains(&json!("faulty.sleep"))
        }))
    })
    .await
}
