//! A small batch on real data: 1,000 rows of a file in five ranges, one task after the other.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tasker_messages::Namespace;

use super::link::{Link, result_of};
use super::spent::Meter;
use super::timed::Timed;

/// Analyzer, five ranges, aggregator.
pub(super) const STEPS: u64 = 7;
/// Tasks before the first one that is measured.
const WARM_UP: u32 = 5;

pub(super) async fn measure(
    link: &Link,
    meter: &mut Meter,
    file: &Path,
    tasks: u32,
    runs: u32,
) -> anyhow::Result<Vec<Vec<Timed>>> {
    let file = file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?;
    let link = link.in_namespace(Namespace::new("csv_processing")?);
    for _ in 0..WARM_UP {
        one(&link, &file).await?;
    }
    let mut all = Vec::new();
    for _ in 0..runs {
        let mut times = Vec::with_capacity(tasks as usize);
        meter.begin().await?;
        for _ in 0..tasks {
            times.push(one(&link, &file).await?);
        }
        meter.end().await?;
        all.push(times);
    }
    Ok(all)
}

async fn one(link: &Link, file: &Path) -> anyhow::Result<Timed> {
    let begun = Instant::now();
    let context = json!({ "csv_file_path": file, "analysis_mode": "inventory" });
    let id = link.submit("csv_product_inventory_analyzer", context).await?;
    let view = link.wait(id).await?;
    let time = begun.elapsed();
    let result = result_of(&view, "aggregate_csv_results")?;
    let is = |name: &str, expected: u64| result.get(name).and_then(Value::as_u64) == Some(expected);
    if !is("total_processed", 1_000) || !is("worker_count", 5) {
        bail!("task {id}: the aggregate is {result}, not that of 1,000 rows in 5 ranges");
    }
    Timed::of(time, &view)
}
