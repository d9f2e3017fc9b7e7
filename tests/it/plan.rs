//! `tasker template plan`: analyzers run on live workers, and nothing is stored.

use serde_json::{Value, json};
use tasker_config::Loader;
use tasker_messages::code;
use tasker_sdk::{HandlerRegistry, StepContext, StepError, StepResult};
use tasker_tests::{
    Api, Cluster, Database, assert_same, data_file, example, repository, template, until,
};
use tasker_worker_node::WorkerNode;

use crate::support::SOON;

/// Returns how it was called as the name of what it found.
async fn split(ctx: StepContext) -> Result<StepResult, StepError> {
    let reason = format!("plan {}, attempt {}", ctx.is_plan(), ctx.attempt());
    Ok(json!({"batch_processing_outcome": {"type": "no_batches", "reason": reason}}).into())
}

/// A template of the examples in a namespace that no test submits to.
fn planned(name: &str) -> anyhow::Result<String> {
    let path = repository().join("examples/templates").join(format!("{name}.yaml"));
    let text = std::fs::read_to_string(path)?;
    let moved = |line: &str| match line.starts_with("namespace_name:") {
        true => "namespace_name: planned\n".to_owned(),
        false => format!("{line}\n"),
    };
    Ok(text.lines().map(moved).collect())
}

/// Runs the command as a user does; returns its exit code and what it found.
async fn plan(
    cluster: &Cluster,
    yaml: &str,
    input: &Value,
    results: &[&str],
) -> anyhow::Result<(i32, Value)> {
    let name = format!("plan-{}.yaml", uuid::Uuid::now_v7().simple());
    let file = cluster.scratch().write(&name, yaml)?;
    let (url, input) = (cluster.state()?.url, input.to_string());
    let mut arguments =
        vec!["--url", &url, "template", "plan", &file, "--input", &input, "-o", "json"];
    arguments.extend(results.iter().flat_map(|result| ["--result", *result]));
    let ended = cluster.tool().run(&arguments).await?;
    let found = ended.json()?;
    assert_eq!(found["ok"] == true, ended.code == 0, "{ended:?}");
    Ok((ended.code, found))
}

/// Codes of what is violated by the plan's only step.
fn codes(found: &Value) -> Vec<&str> {
    let violations = found["steps"][0]["violations"].as_array().into_iter().flatten();
    violations.filter_map(|problem| problem["code"].as_str()).collect()
}

async fn assert_nothing_stored(database: &Database) -> anyhow::Result<()> {
    let query =
        "select (select count(*) from tasker.templates where namespace = 'planned') as templates,
        (select count(*) from tasker.namespaces where name = 'planned') as namespaces,
        (select count(*) from tasker.tasks where namespace = 'planned') as tasks,
        (select count(*) from tasker.steps where namespace = 'planned') as steps,
        (select count(*) from tasker.batches b join tasker.tasks t on t.id = b.task_id
         where t.namespace = 'planned') as batches,
        (select count(*) from tasker.cursor_pages p where not exists
         (select from tasker.steps s where s.id = p.step_id)) as pages";
    let none = json!({"templates": 0, "namespaces": 0, "tasks": 0, "steps": 0, "batches": 0,
        "pages": 0});
    assert_eq!(database.row(query).await?, none);
    Ok(())
}

/// The ranges are those of the real workload; were one of them wrong, its own test would not see
/// that the plan differs from it.
#[tokio::test]
async fn a_real_workload_is_planned_and_nothing_is_stored() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let input = json!({"csv_file_path": example("products.csv")});
    let (code, found) = plan(&cluster, &planned("products")?, &input, &[]).await?;
    assert_eq!(code, 0, "{found}");
    let range = |n: u64| {
        json!({"batch_id": format!("{n:03}"), "start_cursor": 200 * (n - 1),
            "end_cursor": 200 * n, "batch_size": 200})
    };
    let mut step = found["steps"][0].clone();
    assert!(step["execution_ms"].take().is_u64(), "{found}");
    let bytes = step["batch"]["member_bytes"].take().as_u64().unwrap_or_default();
    assert!((400..600).contains(&bytes), "{found}");
    let expect = json!({
        "step": "analyze_csv", "state": "planned", "violations": [], "execution_ms": null,
        "batch": {
            "form": "cursor_configs", "worker_template": "process_csv_batch", "queue": "default",
            "members": 5, "total_items": 1_000, "sizes": {"min": 200, "median": 200, "max": 200},
            "parallelism": null, "max_running": null, "failure_strategy": "continue_on_failure",
            "tolerated_failures": 5, "member_bytes": null,
            "first": [range(1), range(2), range(3), range(4), range(5)], "last": [],
        },
    });
    assert_same(&step, &expect, &[]);
    assert_eq!(found["steps"].as_array().map(Vec::len), Some(1), "{found}");

    // More ranges than an outcome lists: they are appended, and answered instead of stored.
    let input = json!({"csv_file_path": example("weather.csv"), "rows_per_batch": 5});
    let (code, found) = plan(&cluster, &planned("csv_profile")?, &input, &[]).await?;
    let batch = &found["steps"][0]["batch"];
    assert_eq!((code, &batch["form"]), (0, &json!("cursors_appended")), "{found}");
    assert_eq!((&batch["members"], &batch["total_items"]), (&json!(5_223), &json!(26_115)));
    assert!(batch["sizes"].is_null(), "composite cursors have no size: {batch}");
    assert_eq!(batch["first"][0]["start_cursor"], json!({"row": 0, "byte": 105}));
    let size = std::fs::metadata(data_file("weather.csv"))?.len();
    assert_eq!(batch["last"][4]["end_cursor"], json!({"row": 26_115, "byte": size}), "{batch}");

    let (code, found) =
        plan(&cluster, &planned("synthetic")?, &json!({"dataset_size": 0}), &[]).await?;
    let batch = &found["steps"][0]["batch"];
    assert_eq!((code, &batch["form"]), (0, &json!("no_batches")), "{found}");
    assert_eq!((&batch["reason"], &batch["members"]), (&json!("the data set is empty"), &json!(1)));
    assert_nothing_stored(&cluster.database()?).await
}

#[tokio::test]
async fn what_an_analyzer_needs_can_be_given() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let yaml = planned("diamond_decision_batch")?;
    let input = json!({"numbers": [2, 4, 6, 8, 10]});
    let (code, found) = plan(&cluster, &yaml, &input, &[]).await?;
    assert_eq!(code, 0, "{found}");
    for step in found["steps"].as_array().into_iter().flatten() {
        assert_eq!(step["state"], "needs_results", "{step}");
        assert_eq!(step["needs"], json!(["ddb_routing_decision"]), "{step}");
    }
    let outcome = json!({"type": "create_steps", "step_names": ["even_batch_analyzer"]});
    let decision = json!({"decision_point_outcome": outcome});
    let given = format!("ddb_routing_decision={decision}");
    let (code, found) = plan(&cluster, &yaml, &input, &[&given]).await?;
    assert_eq!(code, 0, "{found}");
    let even = &found["steps"][0];
    assert_eq!((&even["step"], &even["state"]), (&json!("even_batch_analyzer"), &json!("planned")));
    assert_eq!(even["batch"]["members"], 3, "five numbers in batches of two: {even}");
    // Without numbers for it, its analyzer would fail; but that branch is not taken.
    let odd = &found["steps"][1];
    assert_eq!((&odd["step"], &odd["state"]), (&json!("odd_batch_analyzer"), &json!("not_chosen")));
    assert_nothing_stored(&cluster.database()?).await
}

#[tokio::test]
async fn nobody_offers_the_analyzer() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let yaml = planned("synthetic")?;
    let callable = "callable: synthetic.analyze_dataset";
    for (handler, says) in [
        ("callable: synthetic.nothing", "has no handler `synthetic.nothing`"),
        ("callable: synthetic.analyze_dataset\n      queue: nowhere", "nobody serves the queue"),
    ] {
        let yaml = yaml.replace(callable, handler);
        let (code, found) = plan(&cluster, &yaml, &json!({"dataset_size": 7}), &[]).await?;
        assert_eq!((code, codes(&found)), (6, vec![code::PLAN_UNSERVED]), "{found}");
        let step = &found["steps"][0];
        assert!(step["batch"].is_null() && step["state"] == "refused", "{step}");
        let message = step["violations"][0]["message"].as_str().unwrap_or_default();
        assert!(message.contains(says), "{message}");
    }
    Ok(())
}

/// Three workers do not have the handler, one has: it is found, whoever is asked first.
#[tokio::test]
async fn the_one_worker_that_has_the_handler_runs_it() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let yaml = planned("synthetic")?
        .replace("namespace_name: planned", "namespace_name: plan-fleet")
        .replace("synthetic.analyze_dataset", "fleet.split");
    let mut settings = Loader::new()?.load()?.settings;
    settings.nats.url = cluster.state()?.nats_url;
    settings.worker.namespaces = vec!["plan-fleet".to_owned()];
    let handlers = HandlerRegistry::new().register("fleet.split", split);
    let worker = WorkerNode::start(settings, handlers, "build").await?;
    until("the new worker is found", SOON, async || {
        let (_, found) = plan(&cluster, &yaml, &json!({}), &[]).await?;
        let reason = &found["steps"][0]["batch"]["reason"];
        Ok(reason == "plan true, attempt 1")
    })
    .await?;
    worker.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_input_that_would_be_refused_runs_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    // The analyzer would panic.
    let yaml = planned("synthetic")?.replace("synthetic.analyze_dataset", "faulty.panic")
        + "input_schema: {type: object, properties: {dataset_size: {maximum: 10}}}\n";
    let (code, found) = plan(&cluster, &yaml, &json!({"dataset_size": 11}), &[]).await?;
    let violation = &found["violations"][0];
    assert_eq!((code, &violation["code"]), (6, &json!(code::CONTEXT_SCHEMA_VIOLATION)), "{found}");
    assert_eq!(
        (&violation["field"], &found["steps"]),
        (&json!("context.dataset_size"), &json!([]))
    );
    let (code, found) = plan(&cluster, &yaml, &json!({"dataset_size": 10}), &[]).await?;
    assert_eq!((code, codes(&found)), (6, vec![code::HANDLER_PANIC]), "{found}");
    Ok(())
}

#[tokio::test]
async fn outcomes_that_would_be_refused() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let yaml = template("any_outcome")?;
    let range = |id: &str, start: u32, end: u32| json!({"batch_id": id, "start_cursor": start, "end_cursor": end, "batch_size": end - start});
    let create = |count: u32, ranges: Value| {
        json!({"batch_processing_outcome": {"type": "create_batches", "total_items": 20,
            "worker_template_name": "work", "worker_count": count, "cursor_configs": ranges}})
    };
    let two = |start: u32| json!([range("001", 0, 10), range("002", start, 20)]);
    let table = [
        (create(2, two(10)), "planned", vec![]),
        (create(2, two(11)), "planned", vec![code::BATCH_RANGE_GAP]),
        (create(2, two(9)), "refused", vec![code::BATCH_RANGE_INVALID]),
        (create(3, two(10)), "refused", vec![code::BATCH_COUNT_MISMATCH]),
        (json!({"rows": 1}), "refused", vec![code::BATCH_OUTCOME_INVALID]),
        (
            json!({"batch_processing_outcome": {"type": "create_batches", "total_items": 1,
                "worker_template_name": "work", "worker_count": 4_000_000_000_u32,
                "cursor_range": {"start": 0, "end": 4_000_000_000_u64, "batch_size": 1}}}),
            "refused",
            vec![code::BATCH_TOO_LARGE],
        ),
    ];
    for (result, state, expect) in table {
        let input = json!({"result": result});
        let (code, found) = plan(&cluster, &yaml, &input, &[]).await?;
        assert_eq!(codes(&found), expect, "{result}: {found}");
        assert_eq!(found["steps"][0]["state"], state, "{result}: {found}");
        assert_eq!(code, if expect.is_empty() { 0 } else { 6 }, "{result}");
    }
    Ok(())
}

async fn post(api: &Api, body: &Value) -> anyhow::Result<tasker_tests::Answer> {
    let body = body.to_string().into_bytes();
    api.send("POST", "/v1/templates/plan", &[("content-type", b"application/json")], body).await
}

#[tokio::test]
async fn requests_that_are_no_plan() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let (synthetic, diamond) = (planned("synthetic")?, planned("diamond_decision_batch")?);
    let result = |name: &str| json!({"template": diamond, "context": {}, "results": {name: 1}});
    let table = [
        (json!({"template": synthetic}), 400, code::MISSING_KEY),
        (json!({"template": synthetic, "context": {}, "input": {}}), 400, code::UNKNOWN_KEY),
        (json!({"template": synthetic, "context": 7}), 400, code::WRONG_TYPE),
        (json!({"template": "steps: [", "context": {}}), 400, code::INVALID_SYNTAX),
        (json!({"template": "x".repeat(5 << 20), "context": {}}), 413, code::TOO_LARGE),
        (result("ddb_routing"), 400, code::INVALID_VALUE),
        (result("ddb_routing_decision"), 400, code::DECISION_OUTCOME_INVALID),
        (result("aggregate_even_results"), 400, code::INVALID_VALUE),
    ];
    for (body, status, code) in table {
        let answer = post(&api, &body).await?;
        assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.text);
    }
    Ok(())
}

#[tokio::test]
async fn limits_of_the_namespace_are_told() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let namespace = "plan-limits";
    let moved =
        |yaml: &str, from: &str| yaml.replace(from, &format!("namespace_name: {namespace}"));
    api.register(&moved(&template("sleep")?, "namespace_name: faulty")).await?;
    let limits =
        json!({"reason": "a test", "max_open_tasks": 1, "queues": {"default": {"max_running": 3}}});
    let path = format!("/v1/namespaces/{namespace}");
    let set = api.send("PUT", &path, &[], limits.to_string().into_bytes()).await?;
    assert_eq!(set.status, 200, "{}", set.text);
    let task = api.submit(namespace, "sleep", json!({"sleep_ms": 120_000})).await?;
    let yaml = moved(&planned("synthetic")?, "namespace_name: planned");
    let body = json!({"template": yaml, "context": {"dataset_size": 1_001}});
    // The other orchestrator knows the limits a little later.
    until("the plan names the limits", SOON, async || {
        let found = post(&api, &body).await?.body;
        let batch = &found["steps"][0]["batch"];
        assert_eq!(batch["sizes"], json!({"min": 500, "median": 500, "max": 501}), "{found}");
        let is_full = found["violations"][0]["code"] == code::NAMESPACE_FULL;
        assert_eq!(found["ok"] == false, is_full, "{found}");
        Ok(is_full && batch["max_running"] == 3)
    })
    .await?;
    let path = format!("/v1/tasks/{task}");
    assert_eq!(api.send("DELETE", &path, &[], Vec::new()).await?.status, 202);
    Ok(())
}
