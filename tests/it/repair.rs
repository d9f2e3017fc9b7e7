//! Repair by hand: what failed runs again or is settled, and the task lives again.

use serde_json::{Value, json};
use tasker_tests::{Answer, Api, Cluster, Task, assert_same};

use crate::support::SOON;

const WHY: &str = "the disk was full";

/// Two steps in a row, a step beside them, and a decision with two branches and a join.
const TEMPLATE: &str = "name: repairable
namespace_name: faulty
version: 1.0.0
steps:
  - {name: first, handler: {callable: faulty.scripted}}
  - {name: second, dependencies: [first], handler: {callable: faulty.scripted}}
  - {name: beside, handler: {callable: faulty.scripted}}
  - {name: route, type: decision, dependencies: [beside], handler: {callable: faulty.scripted}}
  - {name: left, dependencies: [route], handler: {callable: faulty.scripted}}
  - {name: right, dependencies: [route], handler: {callable: faulty.scripted}}
  - {name: join, type: deferred_convergence, dependencies: [left, right], handler: {callable: faulty.scripted}}
";

/// A range per worker; each fails for good in its first attempt.
fn batch_template(name: &str, config: &str) -> String {
    format!(
        "name: {name}
namespace_name: data_processing
version: 1.0.0
steps:
  - name: split_items
    type: batchable
    handler: {{callable: resumable.split}}
    batch_config: {{worker_template: work_through{config}}}
  - name: work_through
    type: batch_worker
    dependencies: [split_items]
    handler: {{callable: resumable.work}}
  - name: total
    type: deferred_convergence
    dependencies: [work_through]
    handler: {{callable: resumable.total}}
"
    )
}

async fn patch(api: &Api, task: &str, step: &str, body: &Value) -> anyhow::Result<Answer> {
    let path = format!("/v1/tasks/{task}/steps/{step}");
    api.send("PATCH", &path, &[], body.to_string().into_bytes()).await
}

async fn retry(api: &Api, path: &str) -> anyhow::Result<Answer> {
    let body = json!({"reason": WHY, "by": "op"}).to_string().into_bytes();
    api.send("POST", path, &[], body).await
}

/// The task's counters, which must say that nothing is left.
async fn settled(cluster: &Cluster, task: &Task) -> anyhow::Result<()> {
    let query = format!(
        "select t.active_steps, t.pending_steps, t.failed_steps,
                (select count(*) from tasker.batches b where b.task_id = t.id
                 and (b.remaining > 0 or not b.settled
                      or b.succeeded <> (select count(*) from tasker.steps s
                                         join tasker.outcomes o on o.step_id = s.id
                                         where s.batch_id = b.id and o.state = 'complete'))) as wrong
         from tasker.tasks t where t.id = '{}'",
        task.id()
    );
    let expect = json!({"active_steps": 0, "pending_steps": 0, "failed_steps": 0, "wrong": 0});
    assert_same(&cluster.database()?.row(&query).await?, &expect, &[]);
    Ok(())
}

async fn audit(cluster: &Cluster, task: &Task) -> anyhow::Result<Value> {
    let query = format!(
        "select action, principal, reason from tasker.admin_actions where task_id = '{}' order by id",
        task.id()
    );
    cluster.database()?.rows(&query).await
}

#[tokio::test]
async fn a_reset_step_resumes_from_its_checkpoint() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let context = json!({"total_items": 100, "fail_after_items": 30, "permanent_failure": true});
    let task = api.run("data_processing", "resumable_batch", context, SOON).await?;
    assert_eq!(task.error_code(), "BATCH_ALL_FAILED", "{}", task.view);
    let body = json!({"action": "reset_for_retry", "reason": WHY, "by": "op"});
    let answer = patch(&api, task.id(), "work_through_001", &body).await?;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.body["batches"][0]["members"], 1, "{}", answer.text);

    let task = api.wait(task.id(), SOON).await?;
    assert_eq!((task.state(), task.view.get("error")), ("complete", None), "{}", task.view);
    let step = task.step("work_through_001")?;
    assert_eq!(step["attempt"], 2, "{step}");
    let result = &step["results"]["result"];
    assert_eq!((&result["resumed_from"], &result["sum"]), (&json!(25), &json!(4_950)), "{step}");
    assert_same(
        task.result("total")?,
        &json!({"processed": 100, "sum": 4_950, "ranges": 1, "failed": 0}),
        &[],
    );
    settled(&cluster, &task).await?;
    let expect = json!([{"action": "reset_for_retry", "principal": "op", "reason": WHY}]);
    assert_same(&audit(&cluster, &task).await?, &expect, &[]);

    // Once more: it has not failed, and its aggregator has run.
    let answer = patch(&api, task.id(), "work_through_001", &body).await?;
    assert_eq!((answer.status, answer.code()), (409, "STEP_NOT_FAILED"), "{}", answer.text);
    Ok(())
}

#[tokio::test]
async fn a_stopped_batch_is_retried_as_a_whole() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(&batch_template("stops_then_goes_on", ", failure_strategy: fail_fast")).await?;
    let context = json!({"total_items": 500, "workers": 500, "fail_after_items": 0,
        "permanent_failure": true});
    let task = api.run("data_processing", "stops_then_goes_on", context, SOON).await?;
    assert_eq!(task.error_code(), "BATCH_STOPPED", "{}", task.view);
    let batch = task.batch()?["id"].as_str().unwrap_or_default().to_owned();
    let failed = task.steps().iter().find(|step| step["state"] == "error").cloned();
    let failed = failed.unwrap_or_default()["id"].as_str().unwrap_or_default().to_owned();
    let body = json!({"action": "reset_for_retry", "reason": WHY});
    let answer = patch(&api, task.id(), &failed, &body).await?;
    assert_eq!((answer.status, answer.code()), (409, "BATCH_STOPPED"), "{}", answer.text);

    let answer = retry(&api, &format!("/v1/tasks/{}/batches/{batch}/retry", task.id())).await?;
    assert_eq!(
        (answer.status, &answer.body["batches"][0]["members"]),
        (200, &json!(500)),
        "{}",
        answer.text
    );
    let task = api.wait(task.id(), SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view["batches"]);
    let expect = json!({"processed": 500, "sum": 124_750, "ranges": 500, "failed": 0});
    assert_same(task.result("total")?, &expect, &[]);
    settled(&cluster, &task).await?;
    let again = retry(&api, &format!("/v1/tasks/{}/batches/{batch}/retry", task.id())).await?;
    assert_eq!((again.status, again.code()), (409, "NOTHING_TO_RETRY"), "{}", again.text);
    Ok(())
}

#[tokio::test]
async fn a_task_is_retried() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(&batch_template("fails_then_works", "")).await?;
    let context = json!({"total_items": 40, "workers": 40, "fail_after_items": 0,
        "permanent_failure": true});
    let task = api.run("data_processing", "fails_then_works", context, SOON).await?;
    assert_eq!(task.error_code(), "BATCH_ALL_FAILED", "{}", task.view);
    let answer = retry(&api, &format!("/v1/tasks/{}/retry", task.id())).await?;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let task = api.wait(task.id(), SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    assert_same(
        task.result("total")?,
        &json!({"processed": 40, "sum": 780, "ranges": 40, "failed": 0}),
        &[],
    );
    settled(&cluster, &task).await?;
    Ok(())
}

#[tokio::test]
async fn steps_are_settled_by_hand() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(TEMPLATE).await?;
    let fails = json!({"failures": 1, "permanent": true});
    let context = json!({"script": {"first": fails, "route": fails}});
    let task = api.run("faulty", "repairable", context, SOON).await?;
    assert_eq!(task.state(), "blocked_by_failures", "{}", task.view);
    let id = task.id().to_owned();

    let resolve = json!({"action": "resolve_manually", "reason": WHY});
    let answer = patch(&api, &id, "route", &resolve).await?;
    assert_eq!((answer.status, answer.code()), (400, "INVALID_REQUEST"), "{}", answer.text);
    let wrong = json!({"action": "complete_manually", "reason": WHY, "result": {"x": 1}});
    let answer = patch(&api, &id, "route", &wrong).await?;
    assert_eq!(
        (answer.status, answer.code()),
        (400, "DECISION_OUTCOME_INVALID"),
        "{}",
        answer.text
    );

    assert_eq!(patch(&api, &id, "first", &resolve).await?.status, 200);
    let half = api.wait(&id, SOON).await?;
    assert_eq!(half.state(), "blocked_by_failures", "the decision has still failed: {}", half.view);
    assert_eq!(half.step("first")?["state"], "resolved_manually");
    assert_eq!(half.step("second")?["state"], "complete");

    let chosen =
        json!({"decision_point_outcome": {"type": "create_steps", "step_names": ["left"]}});
    let complete = json!({"action": "complete_manually", "reason": WHY, "result": chosen});
    let answer = patch(&api, &id, "route", &complete).await?;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let task = api.wait(&id, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    assert_same(task.result("route")?, &chosen, &[]);
    assert_same(task.result("join")?, &json!({"saw": {"left": "complete"}}), &[]);
    assert!(task.step("right").is_err(), "{}", task.view);
    settled(&cluster, &task).await?;
    let actions = audit(&cluster, &task).await?;
    let actions: Vec<&Value> =
        actions.as_array().into_iter().flatten().map(|a| &a["action"]).collect();
    assert_eq!(actions, ["resolve_manually", "complete_manually"], "what was refused is no action");
    Ok(())
}

#[tokio::test]
async fn an_aggregator_that_ran_is_not_undone() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let context = json!({"n": 4, "fail": [1]});
    let task = api.run("faulty", "slow_batch", context, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let body = json!({"action": "reset_for_retry", "reason": WHY});
    let answer = patch(&api, task.id(), "work_slowly_002", &body).await?;
    assert_eq!((answer.status, answer.code()), (409, "AGGREGATOR_RAN"), "{}", answer.text);
    let answer = retry(&api, &format!("/v1/tasks/{}/retry", task.id())).await?;
    assert_eq!((answer.status, answer.code()), (409, "AGGREGATOR_RAN"), "{}", answer.text);

    // Unless that is what is wanted: then it runs again, over all four.
    let partial = json!({"sum": 5, "succeeded": 3, "failed": 1, "worker_count": 4});
    assert_same(task.result("sum_slowly")?, &partial, &[]);
    let body = json!({"action": "complete_manually", "reason": WHY, "result": {"value": 100},
                      "cascade": true});
    let answer = patch(&api, task.id(), "work_slowly_002", &body).await?;
    assert_eq!((answer.status, &answer.body["taken_back"]), (200, &json!(1)), "{}", answer.text);
    let again = api.wait(task.id(), SOON).await?;
    assert_eq!(again.state(), "complete", "{}", again.view);
    let whole = json!({"sum": 105, "succeeded": 4, "failed": 0, "worker_count": 4});
    assert_same(again.result("sum_slowly")?, &whole, &[]);
    let id = |task: &Task| task.step("sum_slowly").map(|step| step["id"].clone());
    assert_ne!(id(&again)?, id(&task)?, "a step of its own: {}", again.view);
    settled(&cluster, &again).await?;
    Ok(())
}

#[tokio::test]
async fn requests_without_sense() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(TEMPLATE).await?;
    let context = json!({"script": {"first": {"failures": 1, "permanent": true},
        "route": {"returns": {"decision_point_outcome": {"type": "no_branches"}}}}});
    let task = api.run("faulty", "repairable", context, SOON).await?;
    let id = task.id();
    let reset = |reason: Value| json!({"action": "reset_for_retry", "reason": reason});
    let ok = reset(json!(WHY));
    let unknown = "0190a0a0-0000-7000-8000-000000000000";
    // Task, step, body -> status and code.
    let table = [
        (unknown, unknown, ok.clone(), 404, "TASK_NOT_FOUND"),
        (id, unknown, ok.clone(), 404, "STEP_NOT_FOUND"),
        (id, "nobody", ok.clone(), 404, "STEP_NOT_FOUND"),
        ("x", "first", ok.clone(), 400, "INVALID_REQUEST"),
        (id, "beside", ok.clone(), 409, "STEP_NOT_FAILED"),
        (id, "second", ok.clone(), 409, "STEP_NOT_FAILED"),
        (id, "first", reset(json!("")), 400, "INVALID_VALUE"),
        (id, "first", reset(json!("x".repeat(1_001))), 400, "INVALID_VALUE"),
        (id, "first", reset(json!(null)), 400, "WRONG_TYPE"),
        (id, "first", reset(json!("a\0b")), 400, "NUL_CHARACTER"),
        (id, "first", json!({"action": "reset_for_retry"}), 400, "MISSING_KEY"),
        (id, "first", json!({"action": "undo", "reason": WHY}), 400, "INVALID_VALUE"),
        (
            id,
            "first",
            json!({"action": "reset_for_retry", "reason": WHY, "why": 1}),
            400,
            "UNKNOWN_KEY",
        ),
        (
            id,
            "first",
            json!({"action": "reset_for_retry", "reason": WHY, "result": 1}),
            400,
            "INVALID_VALUE",
        ),
        (id, "first", json!({"action": "complete_manually", "reason": WHY}), 400, "INVALID_VALUE"),
        (id, "first", json!([]), 400, "WRONG_TYPE"),
        // As a path has it: nothing is named so.
        (id, "fir%00st", ok.clone(), 404, "STEP_NOT_FOUND"),
    ];
    for (task, step, body, status, code) in table {
        let answer = patch(&api, task, step, &body).await?;
        assert_eq!((answer.status, answer.code()), (status, code), "{body}: {}", answer.text);
    }
    // None of them changed anything.
    assert_same(&api.wait(id, SOON).await?.view, &task.view, &[]);
    Ok(())
}
