//! W4: a small batch beside a large one in the same namespace.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;
use tasker_messages::TaskId;

use super::fan_out::verify;
use super::link::Link;

/// Members of the small batch.
pub(super) const SMALL: u32 = 2_000;
/// Members of the large one that must have ended before the small one begins.
const UNDER_WAY: u32 = 2_000;
/// Between two looks at the large one.
const LOOK: Duration = Duration::from_millis(50);

/// How long the small batch took, run by run.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) alone: Vec<Duration>,
    pub(super) beside: Vec<Duration>,
}

pub(super) async fn measure(link: &Link, large: u32, runs: u32) -> anyhow::Result<Times> {
    let mut times = Times::default();
    for _ in 0..runs {
        times.alone.push(small(link).await?);
        let id = link.submit("fan_out", json!({ "n": large })).await?;
        under_way(link, id).await?;
        times.beside.push(small(link).await?);
        if link.get(id).await?.state.is_terminal() {
            bail!("the large batch ended before the small one: give it more than {large} members");
        }
        verify(&link.wait(id).await?, large)?;
    }
    Ok(times)
}

async fn small(link: &Link) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let id = link.submit("fan_out", json!({ "n": SMALL })).await?;
    let view = link.wait(id).await?;
    let time = begun.elapsed();
    verify(&view, SMALL)?;
    Ok(time)
}

async fn under_way(link: &Link, id: TaskId) -> anyhow::Result<()> {
    loop {
        let view = link.get(id).await?;
        if view.batches.first().is_some_and(|batch| batch.succeeded >= UNDER_WAY) {
            return Ok(());
        }
        if view.state.is_terminal() {
            bail!("the large batch ended at once: {}", view.state);
        }
        tokio::time::sleep(LOOK).await;
    }
}
