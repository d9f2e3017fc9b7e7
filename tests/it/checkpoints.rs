//! Workload 6: ranges that resume where they were, after a failure, a yield, or the death of a worker.

use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tasker_tests::{Cluster, Process, Task, assert_same, until};

use crate::support::{SOON, number};

const NAMESPACE: &str = "data_processing";
const TEMPLATE: &str = "resumable_batch";

fn run(attempt: u32, from: u64, upto: u64) -> Value {
    json!({"attempt": attempt, "from": from, "upto": upto})
}

/// The only range of a task: its step.
fn worker(task: &Task) -> anyhow::Result<&Value> {
    task.step("work_through_001")
}

/// The places of a step's checkpoints, oldest first.
async fn history(cluster: &Cluster, step: &Value) -> anyhow::Result<Value> {
    let id = step["id"].as_str().unwrap_or_default();
    let query = format!(
        "select h ->> 'attempt' as attempt, h ->> 'items_processed' as items
         from tasker.checkpoints, jsonb_array_elements(history) with ordinality as e(h, n)
         where step_id = '{id}' order by n"
    );
    cluster.database()?.rows(&query).await
}

fn places(of: &[(u32, u64)]) -> Value {
    let place = |(attempt, items): &(u32, u64)| json!({"attempt": attempt.to_string(), "items": items.to_string()});
    of.iter().map(place).collect()
}

#[tokio::test]
async fn a_retry_resumes_from_the_last_checkpoint() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let context = json!({"total_items": 100, "items_per_checkpoint": 20, "fail_after_items": 50});
    let task = cluster.api()?.run(NAMESPACE, TEMPLATE, context, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let step = worker(&task)?;
    assert_eq!(step["attempt"], 2, "{step}");
    // The ten items after the last checkpoint ran twice, none before it.
    let expect = json!({"processed": 100, "sum": 4_950, "resumed_from": 40,
        "runs": [run(1, 0, 40), run(2, 40, 100)]});
    assert_same(&step["results"]["result"], &expect, &[]);
    let total = json!({"processed": 100, "sum": 4_950, "ranges": 1, "failed": 0});
    assert_same(task.result("total")?, &total, &[]);
    let expect = places(&[(1, 20), (1, 40), (2, 60), (2, 80)]);
    assert_same(&history(&cluster, step).await?, &expect, &[]);
    Ok(())
}

#[tokio::test]
async fn a_permanent_failure_keeps_the_checkpoint() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    // The interval is the template's, 25.
    let context = json!({"total_items": 100, "fail_after_items": 30, "permanent_failure": true});
    let task = cluster.api()?.run(NAMESPACE, TEMPLATE, context, SOON).await?;
    assert_eq!(task.state(), "blocked_by_failures", "{}", task.view);
    let step = worker(&task)?;
    assert_eq!((&step["state"], &step["attempt"]), (&json!("error"), &json!(1)), "{step}");
    let checkpoint = &step["checkpoint"];
    let place = (&checkpoint["cursor"], &checkpoint["items_processed"]);
    assert_eq!(place, (&json!(25), &json!(25)), "{step}");
    Ok(())
}

#[tokio::test]
async fn a_range_that_yields_costs_nothing_of_its_budget() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    // Nine yields, and a budget of three.
    let context = json!({"total_items": 100, "items_per_checkpoint": 10, "yields": true});
    let task = cluster.api()?.run(NAMESPACE, TEMPLATE, context, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let step = worker(&task)?;
    assert_eq!(step["attempt"], 10, "{step}");
    let result = &step["results"]["result"];
    let runs: Value =
        (0..10).map(|n| run(n + 1, u64::from(n) * 10, u64::from(n) * 10 + 10)).collect();
    assert_same(&result["runs"], &runs, &[]);
    assert_eq!((&result["sum"], &result["resumed_from"]), (&json!(4_950), &json!(90)));
    let query = format!(
        "select tries from tasker.steps where id = '{}'",
        step["id"].as_str().unwrap_or_default()
    );
    assert_eq!(number(&cluster.database()?.row(&query).await?, "tries")?, 0);
    Ok(())
}

#[tokio::test]
async fn history_is_bounded() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let context = json!({"total_items": 61, "items_per_checkpoint": 2, "workers": 1});
    let task = cluster.api()?.run(NAMESPACE, TEMPLATE, context, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let last: Vec<(u32, u64)> = (11..=30).map(|n| (1, n * 2)).collect();
    assert_same(&history(&cluster, worker(&task)?).await?, &places(&last), &[]);
    Ok(())
}

/// Settings under which a vanished worker is noticed sooner.
const QUICK: &str =
    "[streams]\nack_wait_ms = 3000\n[worker]\nprogress_ms = 1000\nlease_ms = 3000\n";

#[tokio::test]
async fn another_worker_resumes_what_a_killed_one_had_stored() -> anyhow::Result<()> {
    let cluster = Cluster::with_settings(1, 1, QUICK).await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    let context = json!({"total_items": 400, "items_per_checkpoint": 20, "item_ms": 20});
    let id = api.submit(NAMESPACE, TEMPLATE, context).await?;
    let stored = format!(
        "select coalesce(max(c.items_processed), 0) as items from tasker.checkpoints c
         join tasker.steps s on s.id = c.step_id where s.task_id = '{id}'"
    );
    until("some checkpoints", SOON, async || {
        Ok(number(&database.row(&stored).await?, "items")? >= 60)
    })
    .await?;
    Process::running(cluster.state()?.pids.workers[0])?.signal(Signal::SIGKILL)?;
    let killed_at = Instant::now();
    let task = api.wait(&id, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let result = &worker(&task)?["results"]["result"];
    let runs = result["runs"].as_array().map_or(0, Vec::len);
    assert_eq!(runs, 2, "one run by each worker: {result}");
    let (first, second) = (&result["runs"][0], &result["runs"][1]);
    assert_eq!((&first["attempt"], &first["from"]), (&json!(1), &json!(0)), "{result}");
    assert!(number(first, "upto")? >= 60 && first["upto"] == second["from"], "{result}");
    assert_eq!((&second["attempt"], &second["upto"]), (&json!(2), &json!(400)), "{result}");
    assert_eq!(result["sum"], 79_800, "{result}");
    assert!(killed_at.elapsed() < SOON);
    Ok(())
}
