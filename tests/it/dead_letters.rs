//! Limits of time, and what becomes of what could not be worked off.

use serde_json::{Value, json};
use tasker_tests::{Answer, Api, Cluster, Task, until};

use crate::support::{SOON, slow_batch};

const WHY: &str = "the cause is gone";

async fn post(api: &Api, path: &str, body: Value) -> anyhow::Result<Answer> {
    api.send("POST", path, &[], body.to_string().into_bytes()).await
}

/// Open letters of a namespace that are of this task.
async fn letters(api: &Api, task: &str) -> anyhow::Result<Vec<Value>> {
    let listed = api.read("/v1/dlq?redriven=false&limit=1000").await?;
    let all = listed["letters"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|letter| letter["task_id"] == task).collect())
}

fn limited(name: &str, lifecycle: &str) -> String {
    format!(
        "name: {name}
namespace_name: faulty
version: 1.0.0
lifecycle: {{{lifecycle}}}
steps:
  - {{name: run, handler: {{callable: faulty.sleep}}}}
  - {{name: then, dependencies: [run], handler: {{callable: faulty.sleep}}}}
"
    )
}

async fn run_limited(api: &Api, name: &str, lifecycle: &str, ms: u64) -> anyhow::Result<Task> {
    api.register(&limited(name, lifecycle)).await?;
    api.run("faulty", name, json!({"sleep_ms": ms}), SOON).await
}

#[tokio::test]
async fn a_task_that_lasts_too_long_ends_and_is_submitted_anew() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let task = run_limited(&api, "lasts", "max_duration_minutes: 0.02", 120_000).await?;
    assert_eq!((task.state(), task.error_code()), ("error", "TASK_STALE"), "{}", task.view);
    let states: Vec<&Value> =
        task.view["steps"].as_array().into_iter().flatten().map(|step| &step["state"]).collect();
    assert_eq!(states, ["cancelled", "cancelled"]);
    let open = letters(&api, task.id()).await?;
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!((&open[0]["kind"], &open[0]["code"]), (&json!("task"), &json!("TASK_STALE")));
    let number = &open[0]["id"];
    let view = api.read(&format!("/v1/dlq/{number}")).await?;
    assert_eq!(
        (&view["task"]["state"], &view["error"]["error_type"]),
        (&json!("error"), &json!("lifecycle"))
    );
    let refused =
        post(&api, &format!("/v1/tasks/{}/retry", task.id()), json!({"reason": WHY})).await?;
    assert_eq!((refused.status, refused.code()), (409, "TASK_ENDED"), "{}", refused.text);

    let path = format!("/v1/dlq/{number}/redrive");
    let redriven = post(&api, &path, json!({"reason": WHY, "by": "op"})).await?;
    assert_eq!(redriven.status, 200, "{}", redriven.text);
    let again = redriven.body["task_id"].as_str().unwrap_or_default().to_owned();
    assert_ne!(again, task.id());
    let second = api.wait(&again, SOON).await?;
    assert_eq!(second.error_code(), "TASK_STALE", "the same template and context: {}", second.view);
    let twice = post(&api, &path, json!({"reason": WHY})).await?;
    assert_eq!((twice.status, twice.code()), (409, "ALREADY_REDRIVEN"), "{}", twice.text);
    let closed = api.read(&format!("/v1/dlq/{number}")).await?;
    assert_eq!(closed["letter"]["redriven_task"], json!(again));
    Ok(())
}

#[tokio::test]
async fn what_becomes_of_a_stale_task_is_for_the_template_to_say() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let error = "max_duration_minutes: 0.02, staleness_action: error";
    let ended = run_limited(&api, "lasts_and_ends", error, 120_000).await?;
    assert_eq!((ended.state(), ended.error_code()), ("error", "TASK_STALE"));
    assert_eq!(letters(&api, ended.id()).await?, Vec::<Value>::new());
    let none = "max_duration_minutes: 0.01, staleness_action: none";
    let done = run_limited(&api, "lasts_and_goes_on", none, 2_500).await?;
    assert_eq!(done.state(), "complete", "{}", done.view);
    // The second step has waited longer than its limit when the first one ends.
    let waits = "max_waiting_for_dependencies_minutes: 0.01, staleness_action: error";
    let waited = run_limited(&api, "waits_too_long", waits, 120_000).await?;
    let message = waited.view["error"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("step `then` waits for its parents"), "{message}");
    let runs = "max_steps_in_process_minutes: 0.01, staleness_action: error";
    let ran = run_limited(&api, "runs_too_long", runs, 120_000).await?;
    let message = ran.view["error"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("step `run` runs"), "{message}");
    // Limits that are not reached change nothing.
    let far = "max_duration_minutes: 60, max_waiting_for_dependencies_minutes: 60, \
               max_waiting_for_retry_minutes: 60, max_steps_in_process_minutes: 60";
    assert_eq!(run_limited(&api, "is_in_time", far, 10).await?.state(), "complete");
    Ok(())
}

/// Members that failed are set aside, grouped by what went wrong, and one by one run again.
#[tokio::test]
async fn isolated_members_are_redriven() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let config = ", failure_strategy: isolate, tolerated_failures: {count: 9}";
    api.register(&slow_batch("sets_aside", config, "faulty.slow_work")).await?;
    // All members fail: the aggregator does not run, so that members can be repaired.
    let context = json!({"n": 3, "fail": [0, 1, 2], "sleep_ms": 1});
    let task = api.run("faulty", "sets_aside", context, SOON).await?;
    let open = letters(&api, task.id()).await?;
    assert_eq!(open.len(), 3, "{open:?}");
    assert!(open.iter().all(|letter| letter["kind"] == "member" && letter["step_id"].is_string()));
    let fingerprint = &open[0]["fingerprint"];
    assert!(open.iter().all(|letter| letter["fingerprint"] == *fingerprint), "{open:?}");
    let groups = api.read("/v1/dlq/groups?namespace=faulty").await?;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    let group = groups.iter().find(|group| group["fingerprint"] == *fingerprint);
    assert!(group.is_some_and(|group| group["count"].as_u64() >= Some(3)), "{groups:?}");

    let number = open[0]["id"].clone();
    let view = api.read(&format!("/v1/dlq/{number}")).await?;
    assert_eq!(view["step"]["step"]["id"], open[0]["step_id"]);
    let redriven = post(&api, &format!("/v1/dlq/{number}/redrive"), json!({"reason": WHY})).await?;
    assert_eq!((redriven.status, &redriven.body["task_id"]), (200, &json!(task.id())));
    // It fails again, and opens a letter of its own.
    until("the member has failed once more", SOON, async || {
        let now = letters(&api, task.id()).await?;
        Ok(now.len() == 3 && now.iter().all(|letter| letter["id"] != number))
    })
    .await?;
    // A retry of the whole batch closes all of them.
    let ended = api.wait(task.id(), SOON).await?;
    let batch = ended.view["batches"][0]["id"].as_str().unwrap_or_default().to_owned();
    let path = format!("/v1/tasks/{}/batches/{batch}/retry", task.id());
    assert_eq!(post(&api, &path, json!({"reason": WHY})).await?.status, 200);
    let first = letters(&api, task.id()).await?;
    assert!(first.iter().all(|letter| letter["attempt"].as_u64() > open[0]["attempt"].as_u64()));
    Ok(())
}

#[tokio::test]
async fn letters_are_refused_and_removed() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let lifecycle = "max_duration_minutes: 0.01";
    let task = run_limited(&api, "is_purged", lifecycle, 120_000).await?;
    let open = letters(&api, task.id()).await?;
    let number = open[0]["id"].clone();
    let table = [
        ("/v1/dlq/999999999/redrive", json!({"reason": WHY}), 404, "DEAD_LETTER_NOT_FOUND"),
        ("/v1/dlq/x/redrive", json!({"reason": WHY}), 400, "INVALID_REQUEST"),
        ("/v1/dlq/1/redrive", json!({}), 400, "MISSING_KEY"),
        ("/v1/dlq/1/redrive", json!({"reason": " "}), 400, "INVALID_VALUE"),
        ("/v1/dlq/purge", json!({"reason": WHY}), 400, "INVALID_VALUE"),
        ("/v1/dlq/purge", json!({"reason": "", "ids": [1]}), 400, "INVALID_VALUE"),
        ("/v1/dlq/purge", json!({"reason": WHY, "id": 1}), 400, "UNKNOWN_KEY"),
        ("/v1/dlq/purge", json!({"reason": WHY, "older_than_days": 36_501}), 400, "INVALID_VALUE"),
        ("/v1/dlq/purge", json!({"reason": WHY, "ids": vec![1; 10_001]}), 400, "INVALID_VALUE"),
    ];
    for (path, body, status, code) in table {
        let answer = post(&api, path, body).await?;
        assert_eq!((answer.status, answer.code()), (status, code), "{path}: {}", answer.text);
    }
    for query in ["kind=x", "redriven=1", "after=x", "limit=1001", "group=1"] {
        let answer = api.get(&format!("/v1/dlq?{query}")).await?;
        assert_eq!((answer.status, answer.code()), (400, "INVALID_REQUEST"), "{query}");
    }
    // Every condition must hold: this one was not redriven.
    let kept = json!({"reason": WHY, "ids": [number], "redriven": true});
    assert_eq!(post(&api, "/v1/dlq/purge", kept).await?.body, json!({"letters": 0}));
    let gone = json!({"reason": WHY, "ids": [number], "namespace": "faulty"});
    assert_eq!(post(&api, "/v1/dlq/purge", gone).await?.body, json!({"letters": 1}));
    let answer = api.get(&format!("/v1/dlq/{number}")).await?;
    assert_eq!((answer.status, answer.code()), (404, "DEAD_LETTER_NOT_FOUND"));
    let audited = cluster
        .database()?
        .row(&format!(
            "select count(*) from tasker.admin_actions
             where action = 'purge_dead_letters' and reason = '1 letters: {WHY}'"
        ))
        .await?;
    assert!(audited["count"].as_u64() >= Some(1), "{audited}");
    Ok(())
}
