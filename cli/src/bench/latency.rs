//! W3: tasks of three steps, one after the other, on an idle cluster.

use std::time::Instant;

use anyhow::bail;
use serde_json::json;

use super::link::{Link, result_of};
use super::spent::Meter;
use super::timed::Timed;

/// Of each task.
pub(super) const STEPS: u64 = 3;

pub(super) async fn measure(
    link: &Link,
    meter: &mut Meter,
    tasks: u32,
    runs: u32,
) -> anyhow::Result<Vec<Vec<Timed>>> {
    // The first tasks of a namespace also make its durable; they are not what is measured.
    for start in 0..5 {
        one(link, start).await?;
    }
    let mut all = Vec::new();
    for _ in 0..runs {
        let mut times = Vec::with_capacity(tasks as usize);
        meter.begin().await?;
        for start in 0..tasks {
            times.push(one(link, start).await?);
        }
        meter.end().await?;
        all.push(times);
    }
    Ok(all)
}

async fn one(link: &Link, start: u32) -> anyhow::Result<Timed> {
    let begun = Instant::now();
    let id = link.submit("chain", json!({ "start": start })).await?;
    let view = link.wait(id).await?;
    let time = begun.elapsed();
    let result = result_of(&view, "third")?;
    if result.get("value").and_then(serde_json::Value::as_u64) != Some(u64::from(start) + 3) {
        bail!("task {id}: three steps after {start} came to {result}");
    }
    Timed::of(time, &view)
}
