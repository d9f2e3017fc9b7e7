use serde_json::{Value, json};
use tasker_sdk::testing::{BatchFlow, TestBatch, TestContext};

use crate::support::{aggregate, flow, handler};

fn synthetic(context: Value) -> BatchFlow {
    flow([
        ("analyze_dataset", "synthetic.analyze_dataset"),
        ("process_batch", "synthetic.process_batch"),
        ("aggregate_results", "synthetic.aggregate_results"),
    ])
    .context(context)
    .split_wishes(1000, 10)
}

#[tokio::test]
async fn sizes_are_even_and_sums_agree() {
    let table: &[(u64, &[u32])] = &[
        (0, &[]),
        (1, &[1]),
        (1_000, &[1_000]),
        (1_001, &[501, 500]),
        (1_500, &[750; 2]),
        (3_500, &[875; 4]),
        (5_000, &[1_000; 5]),
        (25_000, &[2_500; 10]),
    ];
    for &(size, expect) in table {
        let run = synthetic(json!({"dataset_size": size})).run().await.expect("a size");
        let sizes: Vec<_> = run.ranges.iter().map(|range| range.batch_size).collect();
        assert_eq!(sizes, expect, "{size}");
        let kind = if size == 0 { "no_batches" } else { "create_batches" };
        assert_eq!(run.analyzer["batch_processing_outcome"]["type"], kind, "{size}");
        let got = aggregate(run).expect("sums agree");
        let sum = size * size.saturating_sub(1) / 2;
        assert_eq!((&got["sum"], &got["total_processed"]), (&json!(sum), &json!(size)), "{size}");
        assert_eq!(got["worker_count"], expect.len(), "{size}");
    }
}

#[tokio::test]
async fn a_wrong_sum_is_an_error() {
    let counts = |sum: u64| json!({"items_processed": 1, "items_succeeded": 1, "items_failed": 0, "results": {"sum": sum}});
    for (sum, code) in [(3, None), (4, Some("AGGREGATION_MISMATCH"))] {
        let batch = TestBatch::new("analyze_dataset", "process_batch")
            .analyzer_result(json!({"expected_sum": 3}))
            .succeeded(counts(sum));
        let ctx = TestContext::builder().batch(batch).build();
        let got = handler("synthetic.aggregate_results").call(ctx).await;
        let error = got.err();
        assert_eq!(error.as_ref().map(|e| e.code()), code, "{sum}");
        assert!(error.is_none_or(|e| !e.is_retryable()), "{sum}");
    }
}

#[tokio::test]
async fn other_sizes_are_refused() {
    for size in [json!(-1), json!("many"), json!(1.5), json!(null), json!(u64::MAX)] {
        let error = synthetic(json!({"dataset_size": size})).run().await.expect_err("refused");
        assert_eq!((error.code(), error.is_retryable()), ("VALIDATION_ERROR", false), "{size}");
    }
}
