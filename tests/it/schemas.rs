//! `input_schema` at submission, by every way in, and `result_schema` at the end of a step.

use serde_json::{Value, json};
use tasker_messages::code;
use tasker_tests::{Api, Cluster, assert_same, until_some};

use crate::support::SOON;

const TEMPLATE: &str = "name: checked
namespace_name: faulty
version: 1.0.0
input_schema:
  type: object
  properties:
    orders:
      type: array
      items: {$ref: '#/$defs/order'}
  $defs:
    order: {type: object, required: [price], properties: {price: {type: number, minimum: 0}}}
steps:
  - name: run
    handler: {callable: faulty.scripted}
    result_schema: {type: object, required: [n], properties: {n: {type: integer}}}
  - name: after
    dependencies: [run]
    handler: {callable: faulty.scripted}
";

fn document(orders: &Value) -> Value {
    json!({"namespace": "faulty", "name": "checked", "context": {"orders": orders, "script": {
        "run": {"returns": {"n": 1}}}}})
}

#[tokio::test]
async fn a_context_that_does_not_fit_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(TEMPLATE).await?;
    let answer = api.post_task(&document(&json!([{"price": 1}])), None).await?;
    assert_eq!(answer.status, 201, "{}", answer.text);

    let wrong = document(&json!([{"price": 1}, {}, {"price": "3"}]));
    let answer = api.post_task(&wrong, None).await?;
    assert_eq!((answer.status, answer.code()), (422, code::CONTEXT_SCHEMA_VIOLATION));
    let fields = |problems: &Value| -> Vec<String> {
        let list = problems.as_array().into_iter().flatten();
        list.map(|p| p["field"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let expect = ["context.orders[1]", "context.orders[2].price"];
    assert_eq!(fields(&answer.body["problems"]), expect, "{}", answer.text);
    let many = api.post_task(&document(&json!(vec![json!({}); 100])), None).await?;
    assert_eq!(fields(&many.body["problems"]).len(), 20, "{}", many.text);

    let mut wire = cluster.wire().await?;
    let headers = [("Tasker-Protocol", "1")];
    let body = wrong.to_string().into_bytes();
    let reply = wire.request("tasker.submit.faulty", &headers, &body).await?;
    assert_eq!(reply.code(), code::CONTEXT_SCHEMA_VIOLATION, "{}", reply.body);
    assert_eq!(fields(&reply.body["error"]["problems"]), expect, "{}", reply.body);

    wire.request("tasker.enqueue.faulty", &headers, &body).await?;
    let database = cluster.database()?;
    let query = "select error ->> 'code' as code from tasker.dead_letters
                 where namespace = 'faulty' and task_id is null
                   and error ->> 'code' = 'CONTEXT_SCHEMA_VIOLATION' limit 1";
    until_some("the dead letter", SOON, async || Ok(database.rows(query).await?.get(0).cloned()))
        .await?;
    Ok(())
}

async fn run(api: &Api, name: &str, result: Value) -> anyhow::Result<tasker_tests::Task> {
    api.run("faulty", name, json!({"script": {"run": {"returns": result}}}), SOON).await
}

#[tokio::test]
async fn a_result_that_does_not_fit_is_the_error_of_its_step() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(TEMPLATE).await?;
    let task = run(&api, "checked", json!({"n": 7})).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);

    let task = run(&api, "checked", json!({"n": "seven"})).await?;
    assert_eq!(task.state(), "blocked_by_failures", "{}", task.view);
    let step = task.step("run")?;
    let error = &step["results"]["error"];
    assert_eq!(
        (&error["code"], &step["attempt"]),
        (&json!(code::RESULT_SCHEMA_VIOLATION), &json!(1))
    );
    assert_eq!(error["retryable"], false);
    assert_eq!(error["context"]["violations"][0]["path"], "result.n", "{error}");
    assert!(step["results"]["result"].is_null(), "{step}");

    // By hand no other result is taken than from a handler.
    let path = format!("/v1/tasks/{}/steps/run", task.id());
    let complete = async |result: Value| {
        let body = json!({"action": "complete_manually", "reason": "why", "result": result});
        api.send("PATCH", &path, &[], body.to_string().into_bytes()).await
    };
    let answer = complete(json!({"n": null})).await?;
    assert_eq!((answer.status, answer.code()), (422, code::RESULT_SCHEMA_VIOLATION));
    let answer = complete(json!({"n": 8})).await?;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let task = api.wait(task.id(), SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    assert_same(task.result("run")?, &json!({"n": 8}), &[]);
    Ok(())
}

/// A batch whose members return `{"value": n, …}`, with schemas for analyzer and members.
fn batch(name: &str, most: u32) -> String {
    format!(
        "name: {name}
namespace_name: faulty
version: 1.0.0
steps:
  - name: split_slowly
    type: batchable
    handler: {{callable: faulty.slow_split}}
    batch_config: {{worker_template: work_slowly}}
    result_schema: {{type: object, required: [batch_processing_outcome]}}
  - name: work_slowly
    type: batch_worker
    dependencies: [split_slowly]
    handler: {{callable: faulty.slow_work}}
    result_schema: {{type: object, required: [value], properties: {{value: {{maximum: {most}}}}}}}
  - name: sum_slowly
    type: deferred_convergence
    dependencies: [work_slowly]
    handler: {{callable: faulty.slow_sum}}
"
    )
}

#[tokio::test]
async fn members_and_analyzers_are_checked() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(&batch("checked_batch", 6)).await?;
    let task = api.run("faulty", "checked_batch", json!({"n": 10, "sleep_ms": 1}), SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let batch_view = task.batch()?;
    assert_eq!((&batch_view["succeeded"], &batch_view["failed"]), (&json!(7), &json!(3)));
    let error = &task.step("work_slowly_008")?["results"]["error"];
    assert_eq!(error["code"], code::RESULT_SCHEMA_VIOLATION, "{error}");

    // What stands for a batch without ranges is no result of the handler's.
    let task = api.run("faulty", "checked_batch", json!({"n": 0}), SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);

    let strict = batch("checked_split", 6).replace("[batch_processing_outcome]", "[missing]");
    api.register(&strict).await?;
    let task = api.run("faulty", "checked_split", json!({"n": 3}), SOON).await?;
    assert_eq!(task.error_code(), code::RESULT_SCHEMA_VIOLATION, "{}", task.view);
    assert_eq!(task.step_names(), ["split_slowly"]);
    Ok(())
}
