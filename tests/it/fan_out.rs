//! Batches of thousands of members, by an arithmetic range and by appended cursors.

use serde_json::{Value, json};
use tasker_tests::{Cluster, assert_same, example, expected};

use crate::support::{SOON, balanced, books, ended_batch, no_op_batch, without};

#[tokio::test]
async fn five_thousand_members_of_a_range() -> anyhow::Result<()> {
    const N: u64 = 5_000;
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let task = api.run("bench", "fan_out", json!({"n": N}), SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let outcome = json!({"batch_processing_outcome": {
        "type": "create_batches", "worker_template_name": "add_one", "worker_count": N,
        "cursor_range": {"start": 0, "end": N, "batch_size": 1}, "total_items": N,
    }});
    assert_same(task.result("make_ranges")?, &outcome, &[]);
    assert_same(task.result("sum_up")?, &json!({"sum": N * (N - 1) / 2, "count": N}), &[]);
    let batch = ended_batch("make_ranges", "add_one", N, 0);
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    // Members of large batches are not listed with the task.
    assert_eq!(task.step_names(), ["make_ranges", "sum_up"]);
    // With pages that divide the number of steps and pages that do not.
    for page in [777, 834] {
        let steps = api.all_steps(task.id(), page).await?;
        assert_eq!(steps.len() as u64, N + 2);
        let first: Vec<&Value> = steps[..2].iter().map(|step| &step["name"]).collect();
        assert_eq!(first, ["make_ranges", "sum_up"]);
        for (n, step) in steps[2..].iter().enumerate() {
            assert_eq!(step["name"], format!("add_one_{:03}", n + 1));
            let cursor = json!({"batch_id": format!("{:03}", n + 1), "start_cursor": n,
                "end_cursor": n + 1, "batch_size": 1});
            assert_same(&step["inputs"]["cursor"], &cursor, &[]);
            assert_eq!(step["state"], "complete", "{step}");
            assert_same(&step["results"]["result"], &json!({"value": n}), &[]);
        }
    }
    assert_same(&books(&cluster.database()?, task.id()).await?, &balanced(N), &[]);
    Ok(())
}

#[tokio::test]
async fn few_members_and_none() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    for n in [0_u64, 1, 2] {
        let task = api.run("bench", "fan_out", json!({"n": n}), SOON).await?;
        assert_eq!(task.state(), "complete", "{n}: {}", task.view);
        let sum = n * n.saturating_sub(1) / 2;
        assert_same(task.result("sum_up")?, &json!({"sum": sum, "count": n}), &[]);
        let batch = match n {
            0 => no_op_batch("make_ranges", "add_one"),
            _ => ended_batch("make_ranges", "add_one", n, 0),
        };
        assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    }
    Ok(())
}

#[tokio::test]
async fn more_ranges_than_fit_a_list_are_appended() -> anyhow::Result<()> {
    const RANGES: u64 = 5_223;
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let context = json!({"csv_file_path": example("weather.csv"), "rows_per_batch": 5});
    let task = api.run("csv_processing", "csv_profile", context, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let outcome = json!({"type": "create_batches", "worker_template_name": "profile_csv_batch",
        "worker_count": RANGES, "cursors_appended": RANGES, "total_items": 26_115});
    assert_same(&task.result("analyze_csv")?["batch_processing_outcome"], &outcome, &[]);
    let mut expect = without(&expected("weather.expected.json")?, &["groups"]);
    expect["worker_count"] = RANGES.into();
    assert_same(task.result("merge_profiles")?, &expect, &[]);
    let steps = api.all_steps(task.id(), 1_000).await?;
    let mut at = json!({"row": 0, "byte": 105});
    for (n, step) in steps[2..].iter().enumerate() {
        assert_eq!(step["name"], format!("profile_csv_batch_{:03}", n + 1));
        assert_eq!(step["inputs"]["cursor"]["start_cursor"], at, "{n}");
        at = step["inputs"]["cursor"]["end_cursor"].clone();
    }
    assert_eq!(at["row"], 26_115);
    assert_same(&books(&cluster.database()?, task.id()).await?, &balanced(RANGES), &[]);
    Ok(())
}

#[tokio::test]
async fn steps_in_a_row() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let task = api.run("bench", "chain", json!({"start": 39}), SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    assert_eq!(task.step_names(), ["first", "second", "third"]);
    for (name, value) in [("first", 40), ("second", 41), ("third", 42)] {
        assert_same(task.result(name)?, &json!({"value": value}), &[]);
    }
    Ok(())
}
