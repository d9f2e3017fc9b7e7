//! What failing members do to their batch: each strategy, and each budget.

use futures::future::try_join_all;
use serde_json::{Value, json};
use tasker_tests::{Cluster, Task, assert_same};

use crate::support::{SOON, books, number, slow_batch};

const N: u64 = 200;

/// Runs a batch of 200 members of which every tenth fails.
async fn run(cluster: &Cluster, name: &str, config: &str) -> anyhow::Result<Task> {
    let api = cluster.api()?;
    api.register(&slow_batch(name, config, "faulty.slow_work")).await?;
    let fail: Vec<u64> = (0..N).step_by(10).collect();
    api.run("faulty", name, json!({"n": N, "fail": fail, "sleep_ms": 5}), SOON).await
}

#[tokio::test]
async fn twenty_failures_are_tolerated_or_not() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    // What the template says, and whether 20 of 200 are too many.
    let table = [
        ("continues", "", false),
        ("isolates", ", failure_strategy: isolate", false),
        ("isolates_in_old_words", ", failure_strategy: isolate_failed", false),
        ("tolerates_20", ", tolerated_failures: {count: 20}", false),
        ("tolerates_19", ", tolerated_failures: {count: 19}", true),
        ("tolerates_a_tenth", ", tolerated_failures: {percentage: 10}", false),
        ("tolerates_less", ", tolerated_failures: {percentage: 9.9}", true),
        ("fails_fast", ", failure_strategy: fail_fast", true),
        (
            "fails_not_so_fast",
            ", failure_strategy: fail_fast, tolerated_failures: {count: 20}",
            false,
        ),
    ];
    let check = async |(name, config, stops): (&str, &str, bool)| {
        let task = run(&cluster, name, config).await?;
        let books = books(&cluster.database()?, task.id()).await?;
        let count = |key: &str| number(&books, key);
        assert_eq!((count("remaining")?, count("open")?), (0, 0), "{name}: {books}");
        assert_eq!(count("complete")? + count("error")? + count("cancelled")?, N, "{books}");
        assert_eq!((count("succeeded")?, count("failed")?), (count("complete")?, count("error")?));
        if stops {
            assert_eq!(task.state(), "blocked_by_failures", "{name}: {}", task.view);
            assert_eq!(task.error_code(), "BATCH_STOPPED", "{name}: {}", task.view);
            assert!(task.step("sum_slowly").is_err(), "{name}: {}", task.view);
            assert_eq!(task.batch()?["state"], "failed", "{name}");
        } else {
            assert_eq!(task.state(), "complete", "{name}: {}", task.view);
            let sum: u64 = (0..N).filter(|n| n % 10 != 0).sum();
            let expect = json!({"sum": sum, "succeeded": 180, "failed": 20, "worker_count": N});
            assert_same(task.result("sum_slowly")?, &expect, &[]);
        }
        anyhow::Ok(())
    };
    try_join_all(table.into_iter().map(check)).await?;
    Ok(())
}

#[tokio::test]
async fn a_stopped_batch_starts_nothing_more() -> anyhow::Result<()> {
    const MANY: u64 = 20_000;
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(&slow_batch("stops_early", ", failure_strategy: fail_fast", "faulty.slow_work"))
        .await?;
    let context = json!({"n": MANY, "fail": [0], "sleep_ms": 20});
    let task = api.run("faulty", "stops_early", context, SOON).await?;
    assert_eq!(task.error_code(), "BATCH_STOPPED", "{}", task.view);
    let books = books(&cluster.database()?, task.id()).await?;
    let ran = number(&books, "complete")? + number(&books, "error")?;
    // The window at the most, and what a handful of rounds of the slots ends meanwhile.
    assert!(ran < MANY / 4, "{ran} members ran: {books}");
    assert_eq!(number(&books, "cancelled")? + ran, MANY, "{books}");
    Ok(())
}

#[tokio::test]
async fn isolated_members_are_kept_as_dead_letters() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let task = run(&cluster, "keeps_letters", ", failure_strategy: isolate").await?;
    let query = format!(
        "select s.name, l.namespace, l.attempt, l.error ->> 'code' as code
         from tasker.dead_letters l join tasker.steps s on s.id = l.step_id
         where l.task_id = '{}' order by s.id",
        task.id()
    );
    let letters = cluster.database()?.rows(&query).await?;
    let expect = (0..N).step_by(10).map(|n| {
        json!({"name": format!("work_slowly_{:03}", n + 1), "namespace": "faulty", "attempt": 1,
            "code": "FAILED_ON_PURPOSE"})
    });
    assert_same(&letters, &Value::Array(expect.collect()), &[]);
    Ok(())
}
