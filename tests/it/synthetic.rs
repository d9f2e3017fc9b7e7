//! Workload `synthetic`: exact ranges and sums.

use futures::future::try_join_all;
use serde_json::{Value, json};
use tasker_tests::{Api, Cluster, assert_same};

use crate::support::{SOON, ended_batch, no_op_batch, no_op_result, without};

/// Ranges of one size, from 0.
fn equal(count: u64, size: u64) -> Vec<(u64, u64)> {
    (0..count).map(|n| (n * size, (n + 1) * size)).collect()
}

fn sum(start: u64, end: u64) -> u64 {
    (start..end).sum()
}

fn cursor(n: usize, (start, end): (u64, u64)) -> Value {
    json!({"batch_id": format!("{:03}", n + 1), "start_cursor": start, "end_cursor": end,
        "batch_size": end - start})
}

async fn check(api: &Api, size: u64, ranges: Vec<(u64, u64)>) -> anyhow::Result<()> {
    let context = json!({"dataset_size": size});
    let task = api.run("data_processing", "large_dataset_processor", context, SOON).await?;
    assert_eq!(task.state(), "complete", "{size}: {}", task.view);
    let workers = ranges.len();
    let cursors: Vec<Value> = ranges.iter().enumerate().map(|(n, r)| cursor(n, *r)).collect();
    let outcome = match workers {
        0 => json!({"type": "no_batches", "reason": "the data set is empty"}),
        _ => json!({"type": "create_batches", "worker_template_name": "process_batch",
            "worker_count": workers, "total_items": size, "cursor_configs": cursors}),
    };
    let analyzed = json!({"batch_processing_outcome": outcome, "dataset_size": size,
        "worker_count": workers, "expected_sum": sum(0, size)});
    assert_same(task.result("analyze_dataset")?, &analyzed, &[]);
    for (n, &(start, end)) in ranges.iter().enumerate() {
        let name = format!("process_batch_{:03}", n + 1);
        let step = task.step(&name)?;
        assert_same(&step["inputs"]["cursor"], &cursors[n], &[]);
        let items = end - start;
        let result = json!({"items_processed": items, "items_succeeded": items, "items_failed": 0,
            "items_skipped": 0, "last_cursor": end, "results": {"sum": sum(start, end)}});
        assert_same(task.result(&name)?, &result, &[]);
    }
    let aggregate = json!({
        "total_processed": size, "total_succeeded": size, "total_failed": 0, "total_skipped": 0,
        "batch_count": workers, "success_rate": if workers == 0 { 0.0 } else { 1.0 }, "errors": [],
        "error_count": 0, "sum": sum(0, size), "worker_count": workers,
    });
    assert_same(task.result("aggregate_results")?, &aggregate, &[]);
    assert_eq!(task.steps().len(), workers.max(1) + 2, "{size}");
    let batch = if workers == 0 {
        assert_same(task.result("process_batch_000")?, &no_op_result(), &[]);
        no_op_batch("analyze_dataset", "process_batch")
    } else {
        ended_batch("analyze_dataset", "process_batch", workers as u64, 0)
    };
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    Ok(())
}

#[tokio::test]
async fn ranges_and_sums() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let table = [
        (0, Vec::new()),
        (1_000, vec![(0, 1_000)]),
        (1_001, vec![(0, 501), (501, 1_001)]),
        (1_500, equal(2, 750)),
        (3_500, equal(4, 875)),
        (5_000, equal(5, 1_000)),
        (25_000, equal(10, 2_500)),
    ];
    try_join_all(table.map(|(size, ranges)| check(&api, size, ranges))).await?;
    Ok(())
}
