//! Handlers that do what handlers should not do: an error on their step and nowhere else.

use std::time::Duration;

use futures::future::try_join_all;
use serde_json::{Value, json};
use tasker_tests::{Api, Cluster, Database, assert_same};

use crate::support::{SOON, balanced, books, ended_batch, number, without};

/// A step that goes wrong, one beside it and one behind each.
fn template(name: &str, callable: &str, extra: &str) -> String {
    format!(
        "name: {name}
namespace_name: faulty
version: 1.0.0
steps:
  - name: bad
    {extra}
    handler: {{callable: {callable}}}
  - name: behind_bad
    dependencies: [bad]
    handler: {{callable: faulty.return_context}}
  - name: good
    handler: {{callable: faulty.return_context}}
  - name: behind_good
    dependencies: [good]
    handler: {{callable: faulty.return_context}}
"
    )
}

const THRICE: &str = "retry: {max_attempts: 3, backoff: none}";

/// What goes wrong and how it ends.
struct Case {
    name: &'static str,
    callable: &'static str,
    extra: &'static str,
    context: Value,
    code: &'static str,
    retryable: bool,
    /// What the message holds.
    says: &'static str,
    attempts: u64,
}

fn cases() -> Vec<Case> {
    let case = |name, callable, extra, code, retryable, says, attempts| Case {
        name,
        callable,
        extra,
        context: json!({"result": {"fine": true}, "sleep_ms": 5_000}),
        code,
        retryable,
        says,
        attempts,
    };
    let timeout = "timeout_seconds: 1\n    retry: {max_attempts: 1}";
    let timeout_twice = "timeout_seconds: 0.2\n    retry: {max_attempts: 2, backoff: none}";
    let purpose = "FAILED_ON_PURPOSE";
    let too_large = "RESULT_TOO_LARGE";
    vec![
        case("panics", "faulty.panic", THRICE, "HANDLER_PANIC", false, "a panic on purpose", 1),
        case("ten_mb", "faulty.large_result", THRICE, too_large, false, "1048576", 1),
        case("nul", "faulty.nul_result", THRICE, "RESULT_NOT_STORABLE", false, "NUL", 1),
        case("late", "faulty.sleep", timeout, "HANDLER_TIMEOUT", true, "1s", 1),
        case("late_twice", "faulty.sleep", timeout_twice, "HANDLER_TIMEOUT", true, "200ms", 2),
        case("always", "faulty.always_fail", THRICE, purpose, true, "failure 3 on purpose", 3),
        case("never_again", "faulty.fail_permanently", THRICE, purpose, false, "permanent", 1),
    ]
}

#[tokio::test]
async fn an_error_stays_with_its_step() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    let cases = cases();
    // All at once: they have workers and transactions in common.
    let runs = cases.iter().map(|case| check(&api, &database, case));
    try_join_all(runs).await?;
    Ok(())
}

async fn check(api: &Api, database: &Database, case: &Case) -> anyhow::Result<()> {
    let name = case.name;
    api.register(&template(name, case.callable, case.extra)).await?;
    let task = api.run("faulty", name, case.context.clone(), SOON).await?;
    assert_eq!(task.state(), "blocked_by_failures", "{name}: {}", task.view);
    let bad = task.step("bad")?;
    assert_eq!(bad["state"], "error", "{name}: {bad}");
    assert_eq!(bad["attempt"], case.attempts, "{name}: {bad}");
    let error = &bad["results"]["error"];
    assert_eq!(error["code"], case.code, "{name}: {error}");
    assert_eq!(error["retryable"], case.retryable, "{name}: {error}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains(case.says), "{name}: {:?} is not in {message:?}", case.says);
    assert_eq!(task.view["error"], *error, "{name}");
    let behind = task.step("behind_bad")?;
    assert_eq!((&behind["state"], behind.get("results")), (&json!("pending"), None), "{name}");
    for good in ["good", "behind_good"] {
        assert_eq!(task.step(good)?["state"], "complete", "{name}");
        assert_same(task.result(good)?, &json!({"fine": true}), &[]);
    }
    // Every attempt but the last is kept once, with its error.
    let id = &bad["id"].as_str().unwrap_or_default();
    let query = format!(
        "select attempt, error ->> 'code' as code from tasker.failed_attempts
         where step_id = '{id}' order by attempt"
    );
    let kept: Vec<Value> =
        (1..case.attempts).map(|n| json!({"attempt": n, "code": case.code})).collect();
    assert_same(&database.rows(&query).await?, &json!(kept), &[]);
    Ok(())
}

#[tokio::test]
async fn the_third_attempt_succeeds() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let task = api.run("faulty", "fail_twice_then_succeed", json!({}), SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    assert_eq!(task.view.get("error"), None);
    let step = task.step("run")?;
    assert_eq!((&step["state"], &step["attempt"]), (&json!("complete"), &json!(3)));
    assert_same(task.result("run")?, &json!({"attempt": 3, "tries": 2}), &[]);
    let query = format!(
        "select attempt, error ->> 'message' as message from tasker.failed_attempts
         where step_id = '{}' order by attempt",
        step["id"].as_str().unwrap_or_default()
    );
    let kept = json!([
        {"attempt": 1, "message": "failure 1 of 2 on purpose"},
        {"attempt": 2, "message": "failure 2 of 2 on purpose"},
    ]);
    assert_same(&cluster.database()?.rows(&query).await?, &kept, &[]);
    Ok(())
}

#[tokio::test]
async fn members_fail_and_retry_one_by_one() -> anyhow::Result<()> {
    const N: u64 = 200;
    let cluster = Cluster::shared().await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    let fail: Vec<u64> = (0..N).filter(|n| n % 10 == 3).collect();
    let fail_once: Vec<u64> = (0..N).filter(|n| n % 10 == 7).collect();
    let context = json!({"n": N, "fail": fail, "fail_once": fail_once});
    let task = api.run("faulty", "slow_batch", context, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let sum: u64 = (0..N).filter(|n| n % 10 != 3).sum();
    let expect = json!({"sum": sum, "succeeded": 180, "failed": 20, "worker_count": 200});
    assert_same(task.result("sum_slowly")?, &expect, &[]);
    for n in 0..N {
        let step = task.step(&format!("work_slowly_{:03}", n + 1))?;
        let (state, attempt) = match n % 10 {
            3 => ("error", 1),
            7 => ("complete", 2),
            _ => ("complete", 1),
        };
        assert_eq!((&step["state"], &step["attempt"]), (&json!(state), &json!(attempt)), "{n}");
        let results = &step["results"];
        if state == "error" {
            let error = &results["error"];
            let expect = json!({"code": "FAILED_ON_PURPOSE", "retryable": false,
                "error_type": "permanent", "message": format!("member {n} fails on purpose")});
            assert_same(error, &expect, &[]);
        } else {
            assert_same(&results["result"], &json!({"value": n, "attempt": attempt}), &[]);
        }
    }
    let batch = ended_batch("split_slowly", "work_slowly", 180, 20);
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    let mut expect = balanced(N);
    for (key, value) in [("succeeded", 180), ("complete", 180), ("failed", 20), ("error", 20)] {
        expect[key] = value.into();
    }
    assert_same(&books(&database, task.id()).await?, &expect, &[]);
    let query = format!(
        "select count(*) as attempts, count(distinct f.step_id) as steps
         from tasker.failed_attempts f join tasker.steps s on s.id = f.step_id
         where s.task_id = '{}'",
        task.id()
    );
    assert_eq!(database.row(&query).await?, json!({"attempts": 20, "steps": 20}));
    Ok(())
}

#[tokio::test]
async fn no_aggregate_of_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let context = json!({"n": 3, "fail": [0, 1, 2]});
    let task = cluster.api()?.run("faulty", "slow_batch", context, SOON).await?;
    assert_eq!(task.state(), "blocked_by_failures", "{}", task.view);
    assert_eq!(task.error_code(), "BATCH_ALL_FAILED");
    assert!(task.step("sum_slowly").is_err(), "{}", task.view);
    let batch = ended_batch("split_slowly", "work_slowly", 0, 3);
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    Ok(())
}

/// An outcome of an analyzer and the code of the error that it makes of its step.
fn outcomes() -> Vec<(Value, &'static str)> {
    let create = |cursors: Value, count: u64| {
        json!({"type": "create_batches", "worker_template_name": "work", "worker_count": count,
            "cursor_configs": cursors, "total_items": 2})
    };
    let range = |id: &str, start: u64, end: u64| json!({"batch_id": id, "start_cursor": start, "end_cursor": end, "batch_size": 1});
    let two = json!([range("001", 0, 1), range("002", 1, 2)]);
    let mut other_worker = create(two.clone(), 2);
    other_worker["worker_template_name"] = "gather".into();
    let mut too_many = create(Value::Null, 20_000_000);
    too_many.as_object_mut().expect("an object").remove("cursor_configs");
    too_many["cursor_range"] = json!({"start": 0, "end": 20_000_000, "batch_size": 1});
    vec![
        (Value::Null, "BATCH_OUTCOME_INVALID"),
        (json!({"type": "create_batch"}), "BATCH_OUTCOME_INVALID"),
        (json!({"outcome_type": "NoBatches"}), "BATCH_OUTCOME_OLD_SHAPE"),
        (other_worker, "BATCH_WORKER_TEMPLATE_UNKNOWN"),
        (create(two, 3), "BATCH_COUNT_MISMATCH"),
        (create(json!([]), 0), "BATCH_OUTCOME_INVALID"),
        (create(json!([range("001", 0, 1), range("001", 1, 2)]), 2), "BATCH_ID_INVALID"),
        (create(json!([range("001", 0, 2), range("002", 1, 2)]), 2), "BATCH_RANGE_INVALID"),
        (create(json!([range("001", 1, 0)]), 1), "BATCH_RANGE_INVALID"),
        (too_many, "BATCH_TOO_LARGE"),
    ]
}

#[tokio::test]
async fn an_outcome_without_sense_is_the_analyzers_error() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let run = async |(outcome, code): (Value, &'static str)| {
        let context = json!({"result": {"batch_processing_outcome": outcome}});
        let task = api.run("faulty", "any_outcome", context, SOON).await?;
        assert_eq!(task.state(), "blocked_by_failures", "{outcome}: {}", task.view);
        let error = &task.step("analyze")?["results"]["error"];
        assert_eq!(error["code"], code, "{outcome}: {error}");
        assert_eq!(error["retryable"], false, "{outcome}: {error}");
        assert_eq!(number(task.step("analyze")?, "attempt")?, 1, "{outcome}");
        assert_eq!(task.step_names(), ["analyze"], "{outcome}");
        assert_eq!(task.view["batches"], json!([]), "{outcome}");
        anyhow::Ok(())
    };
    try_join_all(outcomes().into_iter().map(run)).await?;
    Ok(())
}

/// Settings under which a vanished worker is noticed sooner.
const QUICK: &str =
    "[streams]\nack_wait_ms = 3000\n[worker]\nprogress_ms = 1000\nlease_ms = 3000\n";

#[tokio::test]
async fn a_handler_that_takes_its_process_down() -> anyhow::Result<()> {
    let cluster = Cluster::with_settings(1, 2, QUICK).await?;
    let api = cluster.api()?;
    let limit = Duration::from_secs(90);
    let run = async |context: Value| api.run("faulty", "abort", context, limit).await;
    // Together they would charge each other's budget when they share a worker.
    let once = run(json!({"abort": true, "last_attempt": 1})).await?;
    assert_eq!(once.state(), "complete", "{}", once.view);
    assert_same(once.result("run")?, &json!({"attempt": 2, "tries": 1}), &[]);
    let always = run(json!({"abort": true})).await?;
    assert_eq!(always.state(), "error", "{}", always.view);
    assert_eq!(always.error_code(), "STEP_POISONED", "{}", always.view["error"]);
    let healthy = run(json!({})).await?;
    assert_same(healthy.result("run")?, &json!({"attempt": 1, "tries": 0}), &[]);
    Ok(())
}
