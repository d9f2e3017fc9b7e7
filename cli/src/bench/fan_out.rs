//! W1: one task, many workers, one aggregate.

use std::time::Instant;

use anyhow::bail;
use serde_json::{Value, json};
use tasker_messages::TaskView;

use super::link::{Link, result_of};
use super::spent::Meter;
use super::timed::Timed;

pub(super) async fn measure(
    link: &Link,
    meter: &mut Meter,
    (n, sleep_ms): (u32, u64),
    runs: u32,
) -> anyhow::Result<Vec<Timed>> {
    let mut times = Vec::new();
    for _ in 0..runs {
        meter.begin().await?;
        let begun = Instant::now();
        let id = link.submit("fan_out", json!({ "n": n, "sleep_ms": sleep_ms })).await?;
        let view = link.wait(id).await?;
        times.push(Timed::of(begun.elapsed(), &view)?);
        meter.end().await?;
        verify(&view, n)?;
    }
    Ok(times)
}

/// The aggregate is the closed formula n(n-1)/2 over n numbers, each counted once.
pub(super) fn verify(view: &TaskView, n: u32) -> anyhow::Result<()> {
    let result = result_of(view, "sum_up")?;
    let n = u64::from(n);
    let expected = n * n.saturating_sub(1) / 2;
    let is = |name: &str, expected: u64| result.get(name).and_then(Value::as_u64) == Some(expected);
    if !is("sum", expected) || !is("count", n) {
        bail!("task {}: the aggregate is {result}, not the sum {expected} of {n} numbers", view.id);
    }
    Ok(())
}
