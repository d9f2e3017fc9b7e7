//! Keys of a template that nothing else shows the effect of: each of these tests fails if a key is read
//! and forgotten.

use serde_json::json;
use tasker_tests::{Cluster, Task, assert_same, repository};

use crate::support::{SOON, number};

/// A step that always fails for each row: its name, its `retry` and more, how many attempts it has, the
/// shortest pauses between them, and a time within which the last of them is over.
const RETRIES: [(&str, &str, u64, &[u64], u64); 9] = [
    ("default_budget", "{backoff: none}", 3, &[0, 0], u64::MAX),
    ("budget", "{max_attempts: 2, backoff: none}", 2, &[0], u64::MAX),
    ("never", "{retryable: false}", 1, &[], u64::MAX),
    // Ten minutes, if `none` were nothing.
    (
        "none",
        "{backoff: none, backoff_base_ms: 600000, max_backoff_ms: 600000}",
        3,
        &[0, 0],
        60_000,
    ),
    (
        "linear",
        "{max_attempts: 4, backoff: linear, backoff_base_ms: 300, jitter: false}",
        4,
        &[300, 600, 900],
        u64::MAX,
    ),
    (
        "exponential",
        "{max_attempts: 4, backoff: exponential, backoff_base_ms: 300, jitter: false}",
        4,
        &[300, 600, 1_200],
        u64::MAX,
    ),
    (
        "fibonacci",
        "{max_attempts: 6, backoff: fibonacci, backoff_base_ms: 200, jitter: false}",
        6,
        &[200, 200, 400, 600, 1_000],
        u64::MAX,
    ),
    // Without the cap the last pause takes more than three seconds.
    (
        "capped",
        "{max_attempts: 6, backoff_base_ms: 200, max_backoff_ms: 300, jitter: false}",
        6,
        &[200, 300, 300, 300, 300],
        3_000,
    ),
    // The pause is the default of a second, if a base is nothing.
    ("base", "{max_attempts: 2, backoff_base_ms: 1, jitter: false}", 2, &[1], 900),
];

/// Milliseconds between the ends of a step's attempts.
async fn pauses(cluster: &Cluster, task: &Task, step: &str) -> anyhow::Result<Vec<u64>> {
    let id = task.step(step)?["id"].as_str().unwrap_or_default();
    let query = format!(
        "select (extract(epoch from ends - lag(ends) over (order by attempt)) * 1000)::bigint as ms
         from (select attempt, created_at as ends from tasker.failed_attempts where step_id = '{id}'
               union all
               select attempt, created_at from tasker.outcomes where step_id = '{id}') a
         order by attempt"
    );
    let rows = cluster.database()?.rows(&query).await?;
    Ok(rows.as_array().into_iter().flatten().filter_map(|row| row["ms"].as_u64()).collect())
}

#[tokio::test]
async fn retries_are_as_the_template_says() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let steps: String = RETRIES
        .iter()
        .map(|(name, retry, ..)| {
            format!(
                "  - {{name: {name}, handler: {{callable: faulty.always_fail}}, retry: {retry}}}\n"
            )
        })
        .collect();
    let head = "name: retries\nnamespace_name: faulty\nversion: 1.0.0\nsteps:\n";
    api.register(&format!("{head}{steps}")).await?;
    let task = api.run("faulty", "retries", json!({}), SOON).await?;
    for (name, _, attempts, shortest, longest) in RETRIES {
        assert_eq!(number(task.step(name)?, "attempt")?, attempts, "{name}: {}", task.view);
        let pauses = pauses(&cluster, &task, name).await?;
        assert_eq!(pauses.len(), shortest.len(), "{name}: {pauses:?}");
        // A pause counts from the beginning of the transaction that stores the failure, and is measured from
        // the moment in it at which the failure was written down.
        let long_enough = pauses.iter().zip(shortest).all(|(took, least)| took + 50 >= *least);
        assert!(long_enough, "{name}: {pauses:?}");
        assert!(pauses.last().is_none_or(|last| *last < longest), "{name}: {pauses:?}");
    }
    Ok(())
}

/// A template of the examples with other values.
fn variant(template: &str, changes: &[(&str, &str)]) -> anyhow::Result<String> {
    let path = repository().join("examples/templates").join(format!("{template}.yaml"));
    let mut text = std::fs::read_to_string(path)?;
    for (from, to) in changes {
        anyhow::ensure!(text.contains(from), "{template} has no {from}");
        text = text.replacen(from, to, 1);
    }
    Ok(text)
}

#[tokio::test]
async fn an_analyzer_is_told_how_to_split() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    // Name, batch_size, max_workers -> the sizes of the ranges of 1,000 numbers.
    let table: [(&str, &str, &str, &[u64]); 3] = [
        ("split_as_shipped", "1000", "10", &[1_000]),
        ("split_by_size", "250", "10", &[250; 4]),
        ("split_by_workers", "250", "2", &[500; 2]),
    ];
    for (name, size, workers, expect) in table {
        let (size, workers) = (format!("batch_size: {size}"), format!("max_workers: {workers}"));
        api.register(&variant(
            "synthetic",
            &[
                ("large_dataset_processor", name),
                ("batch_size: 1000", &size),
                ("max_workers: 10", &workers),
            ],
        )?)
        .await?;
        let task = api.run("data_processing", name, json!({"dataset_size": 1_000}), SOON).await?;
        assert_eq!(task.state(), "complete", "{name}: {}", task.view);
        let outcome = &task.result("analyze_dataset")?["batch_processing_outcome"];
        let sizes: Vec<u64> = outcome["cursor_configs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|cursor| cursor["batch_size"].as_u64())
            .collect();
        assert_eq!(sizes, expect, "{name}: {outcome}");
    }
    Ok(())
}

#[tokio::test]
async fn members_are_told_of_their_batch() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    for (name, every, resumed_from) in [("every_25", 25, 25), ("every_10", 10, 40)] {
        let interval = format!("checkpoint_interval: {every}");
        let changes = [
            ("resumable_batch", name),
            ("checkpoint_interval: 25", interval.as_str()),
            ("cursor_field: item", "cursor_field: thing"),
        ];
        api.register(&variant("resumable", &changes)?).await?;
        let context = json!({"total_items": 100, "fail_after_items": 45});
        let task = api.run("data_processing", name, context, SOON).await?;
        assert_eq!(task.state(), "complete", "{name}: {}", task.view);
        let step = task.step("work_through_001")?;
        let expect = json!({"checkpoint_interval": every,
            "cursor_field": "thing", "failure_strategy": "continue_on_failure"});
        assert_same(&step["inputs"]["batch_metadata"], &expect, &[]);
        assert_eq!(step["results"]["result"]["resumed_from"], resumed_from, "{name}: {step}");
    }
    Ok(())
}
