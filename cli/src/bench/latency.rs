//! W3: tasks of three steps, one after the other, on an idle cluster.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;

use super::link::{Link, result_of};

pub(super) async fn measure(
    link: &Link,
    tasks: u32,
    runs: u32,
) -> anyhow::Result<Vec<Vec<Duration>>> {
    // The first tasks of a namespace also make its durable; they are not what is measured.
    for start in 0..5 {
        one(link, start).await?;
    }
    let mut all = Vec::new();
    for _ in 0..runs {
        let mut times = Vec::with_capacity(tasks as usize);
        for start in 0..tasks {
            times.push(one(link, start).await?);
        }
        all.push(times);
    }
    Ok(all)
}

async fn one(link: &Link, start: u32) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let id = link.submit("chain", json!({ "start": start })).await?;
    let view = link.wait(id).await?;
    let time = begun.elapsed();
    let result = result_of(&view, "third")?;
    if result.get("value").and_then(serde_json::Value::as_u64) != Some(u64::from(start) + 3) {
        bail!("task {id}: three steps after {start} came to {result}");
    }
    Ok(time)
}
