use serde_json::{Value, json};
use tasker_sdk::testing::{BatchFlow, TestBatch, TestContext};

use crate::support::{aggregate, flow, handler};

fn fan_out(n: u32) -> BatchFlow {
    flow([
        ("make_ranges", "bench.make_ranges"),
        ("add_one", "bench.add_one"),
        ("sum_up", "bench.sum_up"),
    ])
    .context(json!({"n": n}))
}

#[tokio::test]
async fn fan_out_and_in() {
    for n in [0, 1, 2, 3_000] {
        let run = fan_out(n).run().await.expect("an outcome");
        if n > 0 {
            let range = json!({"start": 0, "end": n, "batch_size": 1});
            assert_eq!(run.analyzer["batch_processing_outcome"]["cursor_range"], range);
        }
        let sum = u64::from(n) * u64::from(n.saturating_sub(1)) / 2;
        assert_eq!(aggregate(run).expect("a sum"), json!({"sum": sum, "count": n}), "{n}");
    }
}

#[tokio::test]
async fn a_wrong_sum_or_count_is_an_error() {
    // (values of members, whether they are what n = 3 makes)
    let table: &[(&[u64], bool)] =
        &[(&[0, 1, 2], true), (&[0, 1, 3], false), (&[0, 3], false), (&[0, 1, 2, 0], false)];
    for &(values, good) in table {
        let batch = values.iter().fold(TestBatch::new("make_ranges", "add_one"), |batch, value| {
            batch.succeeded(json!({"value": value}))
        });
        let ctx = TestContext::builder().input(json!({"n": 3})).batch(batch).build();
        let got = handler("bench.sum_up").call(ctx).await.map_err(|e| e.code().to_owned());
        assert_eq!(got.err().as_deref(), (!good).then_some("AGGREGATION_MISMATCH"), "{values:?}");
    }
}

#[tokio::test]
async fn a_chain_adds_up() {
    let call = |callable: &str, previous: Option<(&str, Value)>| {
        let mut builder = TestContext::builder().input(json!({"start": 40}));
        if let Some((name, result)) = previous {
            builder = builder.config(json!({"after": name})).dependency(name, result);
        }
        handler(callable).call(builder.build())
    };
    let first = call("bench.chain_first", None).await.expect("a start").into_value();
    let second = call("bench.chain_next", Some(("first", first))).await.expect("a value");
    assert_eq!(second.value(), &json!({"value": 42}));
}
