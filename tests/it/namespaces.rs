//! Limits of namespaces and their queues.

use anyhow::Context;
use serde_json::{Value, json};
use tasker_messages::code;
use tasker_tests::{Answer, Api, Cluster, until};

use crate::support::{SOON, number, slow_batch};

const FAULTY: &str = "/v1/namespaces/faulty";

async fn put(api: &Api, path: &str, body: &Value) -> anyhow::Result<Answer> {
    api.send("PUT", path, &[], body.to_string().into_bytes()).await
}

/// Sets the limit of the queue `default`; it holds when this returns.
async fn limit(api: &Api, max_running: Value) -> anyhow::Result<()> {
    let queues = json!({"default": {"max_running": max_running}});
    let answer = put(api, FAULTY, &json!({"queues": queues, "reason": "a test"})).await?;
    assert_eq!(answer.status, 200, "{}", answer.text);
    Ok(())
}

/// Starts a batch of members that count how many of them run under one gauge.
async fn start(api: &Api, n: u64, sleep_ms: u64, gauge: &str) -> anyhow::Result<String> {
    api.submit("faulty", "gauged", json!({"n": n, "sleep_ms": sleep_ms, "gauge": gauge})).await
}

/// How many members ran when each of the members began.
async fn running(api: &Api, task: &str) -> anyhow::Result<Vec<u64>> {
    let task = api.wait(task, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let steps = api.all_steps(task.id(), 1_000).await?;
    let members = steps.iter().filter(|step| step["type"] == "batch_worker");
    members.map(|step| number(&step["results"]["result"], "running")).collect()
}

#[tokio::test]
async fn a_queue_is_kept_to_its_limit_and_busy() -> anyhow::Result<()> {
    // One worker with more slots than that, so that its gauge sees all of them.
    let cluster = Cluster::start(1, 1).await?;
    let api = cluster.api()?;
    api.register(&slow_batch("gauged", "", "faulty.gauge")).await?;
    limit(&api, json!(3)).await?;
    // Two tasks share the limit, out of step with each other, for longer than between two heartbeats.
    let (one, other) = (start(&api, 100, 100, "x").await?, start(&api, 100, 70, "x").await?);
    until("a step says what it waits for", SOON, async || {
        let why = api.read(&format!("/v1/tasks/{one}/why")).await?;
        Ok(why.to_string().contains("the limit of the queue `default` lets 3 run at a time"))
    })
    .await?;
    let mut limited = running(&api, &one).await?;
    limited.extend(running(&api, &other).await?);
    assert_eq!(limited.iter().max(), Some(&3), "{limited:?}");
    let full = limited.iter().filter(|&&running| running == 3).count();
    // In waves of three that begin together a third of them would see all three.
    assert!(full >= limited.len() / 4, "{limited:?}");

    // A limit that is raised, and removed, while a task runs has its effect on that task.
    let raised = start(&api, 120, 100, "y").await?;
    until("members have ended", SOON, async || {
        Ok(crate::support::ended_members(&api.summary(&raised).await?) >= 6)
    })
    .await?;
    limit(&api, json!(6)).await?;
    let counts = running(&api, &raised).await?;
    assert_eq!(counts.iter().max(), Some(&6), "{counts:?}");
    limit(&api, Value::Null).await?;
    let free = running(&api, &start(&api, 60, 100, "z").await?).await?;
    assert!(free.iter().max() > Some(&6), "the limit is still there: {free:?}");
    Ok(())
}

#[tokio::test]
async fn several_orchestrators_keep_one_limit() -> anyhow::Result<()> {
    let cluster = Cluster::start(2, 1).await?;
    let api = cluster.api()?;
    api.register(&slow_batch("gauged", "", "faulty.gauge")).await?;
    limit(&api, json!(2)).await?;
    // Whichever of them dispatches, and whichever took the change.
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(start(&api, 12, 100, "x").await?);
    }
    let mut counts = Vec::new();
    for task in &tasks {
        counts.extend(running(&api, task).await?);
    }
    assert_eq!((counts.len(), counts.iter().max()), (72, Some(&2)), "{counts:?}");
    Ok(())
}

/// A small queue with a limit does not keep the worker's slots from another namespace.
#[tokio::test]
async fn slots_are_not_kept_for_what_may_not_run() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    let api = cluster.api()?;
    api.register(&slow_batch("gauged", "", "faulty.gauge")).await?;
    let elsewhere = slow_batch("gauged", "", "faulty.gauge").replace(": faulty\n", ": other\n");
    api.register(&elsewhere).await?;
    // As many wait on the bus as the worker has slots left.
    limit(&api, json!(16)).await?;
    let slow = json!({"n": 400, "sleep_ms": 200, "gauge": "limited"});
    let limited = api.submit("faulty", "gauged", slow).await?;
    until("the limited queue is full", SOON, async || {
        Ok(crate::support::ended_members(&api.summary(&limited).await?) >= 32)
    })
    .await?;
    let fast = json!({"n": 100, "sleep_ms": 50, "gauge": "free"});
    let free = api.submit("other", "gauged", fast).await?;
    let counts = running(&api, &free).await?;
    assert!(counts.iter().max() >= Some(&10), "it got few of the 16 slots: {counts:?}");
    let counts = running(&api, &limited).await?;
    assert!(counts.iter().max() <= Some(&16), "{counts:?}");
    Ok(())
}

/// The value of a counter of the only orchestrator; 0 if it never counted.
async fn counter(api: &Api, name: &str) -> anyhow::Result<f64> {
    let text = api.get("/metrics").await?.text;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(Ok(0.0), |value| value.parse().context("a number"))
}

#[tokio::test]
async fn nothing_passes_by_a_limit_from_worker_to_worker() -> anyhow::Result<()> {
    const HANDED: &str = "tasker_outcomes_handed_steps_total";
    let cluster = Cluster::start(1, 1).await?;
    let api = cluster.api()?;
    let chain = async || api.run("bench", "chain", json!({"start": 1}), SOON).await;
    assert_eq!(chain().await?.state(), "complete");
    let before = counter(&api, HANDED).await?;
    assert!(before > 0.0, "nothing is handed over, so that this test shows nothing");
    let bench = "/v1/namespaces/bench";
    let set = |limit: Value| json!({"reason": "r", "queues": {"default": {"max_running": limit}}});
    assert_eq!(put(&api, bench, &set(json!(5))).await?.status, 200);
    assert_eq!(chain().await?.state(), "complete");
    assert!((counter(&api, HANDED).await? - before).abs() < 0.5, "steps were handed over");
    assert_eq!(put(&api, bench, &set(Value::Null)).await?.status, 200);
    assert_eq!(chain().await?.state(), "complete");
    assert!(counter(&api, HANDED).await? > before, "steps are handed over again");
    Ok(())
}

#[tokio::test]
async fn a_full_namespace_takes_no_more_tasks() -> anyhow::Result<()> {
    // What is not acknowledged comes back soon.
    let settings = "[streams]\nack_wait_ms = 2000\n[worker]\nprogress_ms = 600\ndrain_ms = 500\n";
    let cluster = Cluster::with_settings(1, 1, settings).await?;
    let api = cluster.api()?;
    let quota = |n: Value| json!({"max_open_tasks": n, "reason": "a test"});
    assert_eq!(put(&api, FAULTY, &quota(json!(2))).await?.status, 200);
    let document =
        |ms: u64| json!({"namespace": "faulty", "name": "sleep", "context": {"sleep_ms": ms}});
    let long = document(120_000);
    let first = api.post_task(&long, Some("first")).await?;
    assert_eq!(first.status, 201, "{}", first.text);
    let second = api.submit("faulty", "sleep", json!({"sleep_ms": 120_000})).await?;

    let full = api.post_task(&long, Some("third")).await?;
    assert_eq!((full.status, full.code()), (429, code::NAMESPACE_FULL), "{}", full.text);
    assert_eq!(full.retry_after.as_deref(), Some("1"));
    // A key finds its task however full it is, and another request under it stays a conflict.
    let again = api.post_task(&long, Some("first")).await?;
    assert_eq!((again.status, &again.body["id"]), (200, &first.body["id"]), "{}", again.text);
    let other = api.post_task(&document(1), Some("first")).await?;
    assert_eq!((other.status, other.code()), (409, code::IDEMPOTENCY_CONFLICT), "{}", other.text);
    // Other namespaces are not concerned.
    assert_eq!(api.run("bench", "chain", json!({"start": 1}), SOON).await?.state(), "complete");
    // By request it is refused as well; what is enqueued waits.
    let mut wire = cluster.wire().await?;
    let version = ("Tasker-Protocol", "1");
    let body = document(1).to_string();
    let refused = wire.request("tasker.submit.faulty", &[version], body.as_bytes()).await?;
    assert_eq!(refused.code(), code::NAMESPACE_FULL, "{}", refused.body);
    assert_eq!(refused.body["error"]["retryable"], true, "{}", refused.body);
    let headers = [version, ("Tasker-Idempotency-Key", "enqueued")];
    let carried = wire.request("tasker.enqueue.faulty", &headers, body.as_bytes()).await?;
    assert_eq!(carried.body["stream"], "TASKER_SUBMIT", "{}", carried.body);
    until("the enqueued task was refused twice", SOON, async || {
        let refused = "tasker_submit_tasks_total{outcome=\"namespace_full\"}";
        // Before it the two above.
        Ok(counter(&api, refused).await? >= 4.0)
    })
    .await?;
    let database = cluster.database()?;
    let letters = "select count(*) from tasker.dead_letters";
    assert_eq!(database.row(letters).await?["count"], 0, "it is kept on the bus");
    let tasks = "select count(*) from tasker.tasks where idempotency_key = 'enqueued'";
    assert_eq!(database.row(tasks).await?["count"], 0);

    let path = format!("/v1/tasks/{second}");
    assert_eq!(api.send("DELETE", &path, &[], Vec::new()).await?.status, 202);
    until("the enqueued task is accepted", SOON, async || {
        Ok(database.row(tasks).await?["count"] == 1)
    })
    .await?;
    until("there is room again", SOON, async || {
        let third = api.post_task(&document(1), Some("fourth")).await?;
        assert!(matches!(third.status, 201 | 429), "{}", third.text);
        Ok(third.status == 201)
    })
    .await?;
    assert_eq!(put(&api, FAULTY, &quota(Value::Null)).await?.status, 200);
    for _ in 0..3 {
        api.submit("faulty", "sleep", json!({"sleep_ms": 1})).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_makes_no_limit_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let etl = "/v1/namespaces/etl-nightly";
    let table = [
        (etl, json!({}), "MISSING_KEY"),
        (etl, json!({"reason": " "}), "INVALID_VALUE"),
        (etl, json!({"reason": "r", "max_open_task": 1}), "UNKNOWN_KEY"),
        (etl, json!({"reason": "r", "max_open_tasks": 0}), "INVALID_VALUE"),
        (etl, json!({"reason": "r", "max_open_tasks": -1}), "INVALID_VALUE"),
        (etl, json!({"reason": "r", "max_open_tasks": 1_u64 << 31}), "INVALID_VALUE"),
        (etl, json!({"reason": "r", "max_open_tasks": "7"}), "WRONG_TYPE"),
        (etl, json!({"reason": "r", "description": ""}), "INVALID_VALUE"),
        (etl, json!({"reason": "r", "description": "x".repeat(1_001)}), "INVALID_VALUE"),
        (etl, json!({"reason": "r", "max_running": 0}), "INVALID_VALUE"),
        (etl, json!({"reason": "r", "max_running": true}), "WRONG_TYPE"),
        (etl, json!({"reason": "r", "queues": {"A": {"max_running": 1}}}), "INVALID_NAME"),
        (etl, json!({"reason": "r", "queues": {"a": {"running": 1}}}), "UNKNOWN_KEY"),
        (etl, json!({"reason": "r", "queues": {"a": {"max_running": 0}}}), "INVALID_VALUE"),
        ("/v1/namespaces/ETL", json!({"reason": "r"}), "INVALID_REQUEST"),
    ];
    for (path, body, code) in table {
        let answer = put(&api, path, &body).await?;
        assert_eq!((answer.status, answer.code()), (400, code), "{body}: {}", answer.text);
    }
    let wrong = json!({"reason": "r", "queues": {"a": {"max_running": 0}}});
    let answer = put(&api, etl, &wrong).await?;
    assert_eq!(answer.body["problems"][0]["field"], "queues.a.max_running", "{}", answer.text);
    for query in ["limit=0", "limit=1001", "after=A", "name=x"] {
        let answer = api.get(&format!("/v1/namespaces?{query}")).await?;
        assert_eq!((answer.status, answer.code()), (400, "INVALID_REQUEST"), "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn namespaces_are_set_listed_and_audited() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let url = cluster.state()?.url;
    let tool = async |arguments: &[&str]| {
        let all: Vec<&str> =
            ["--url", &url, "namespace"].iter().chain(arguments).copied().collect();
        cluster.tool().run(&all).await
    };
    let name = "etl-nightly";
    let set = [
        "set",
        name,
        "--description",
        "at night",
        "--max-open-tasks",
        "7",
        "--max-running",
        "9",
        "--max-running",
        "default=3",
        "--max-running",
        "gpu=1",
        "--reason",
        "too much",
        "--by",
        "op",
        "-o",
        "json",
    ];
    let ended = tool(&set).await?;
    let expect = json!({"name": name, "description": "at night", "max_open_tasks": 7,
        "max_running": 9, "open_tasks": 0,
        "queues": {"default": {"max_running": 3}, "gpu": {"max_running": 1}}});
    assert_eq!((ended.code, ended.json()?), (0, expect.clone()), "{ended:?}");
    let found = async || {
        let listed = api.read("/v1/namespaces?limit=1000").await?;
        let all = listed["namespaces"].as_array().cloned().unwrap_or_default();
        // A namespace comes with its first template, too.
        assert!(all.iter().any(|n| n["name"] == "faulty"), "{listed}");
        anyhow::Ok(all.into_iter().find(|n| n["name"] == name))
    };
    assert_eq!(found().await?, Some(expect));
    let set = "set etl-nightly --max-open-tasks none --max-running none --max-running gpu=none \
               --max-running default=none --reason enough --by op";
    let set: Vec<&str> = set.split_whitespace().collect();
    let ended = tool(&set).await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    let bare = json!({"name": name, "description": "at night", "max_open_tasks": null,
        "max_running": null, "open_tasks": 0, "queues": {}});
    assert_eq!(found().await?, Some(bare));
    let listed = tool(&["list", "--limit", "1000", "-o", "ids"]).await?;
    assert!(listed.stdout.lines().any(|line| line == name), "{listed:?}");
    let audited = cluster
        .database()?
        .row(
            "select count(*) from tasker.admin_actions where action = 'set_namespace'
             and namespace = 'etl-nightly' and principal = 'op'",
        )
        .await?;
    assert_eq!(audited["count"], 2, "{audited}");
    Ok(())
}
