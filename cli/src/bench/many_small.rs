//! W2: many small tasks at once.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::bail;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tasker_messages::{TaskId, TaskView, subject};

use super::fan_out::verify;
use super::link::{Link, completed};
use super::spent::Meter;
use super::timed::Timed;

/// Steps of one task: analyzer, 8 workers, aggregator.
pub(super) const STEPS: u64 = 10;
const WORKERS: u32 = 8;
/// Submissions that are under way at a time.
const AT_A_TIME: usize = 256;
/// Without news for this long the tasks themselves are asked.
const SILENCE: Duration = Duration::from_secs(3);

pub(super) async fn measure(
    link: &Link,
    meter: &mut Meter,
    tasks: u32,
    runs: u32,
) -> anyhow::Result<Vec<Timed>> {
    let mut times = Vec::new();
    for _ in 0..runs {
        meter.begin().await?;
        let (ids, time) = run(link, tasks).await?;
        meter.end().await?;
        let views = stream::iter(ids).map(|id| link.get(id)).buffer_unordered(16);
        let views: Vec<TaskView> = views.map(|view| completed(view?)).try_collect().await?;
        views.iter().try_for_each(|view| verify(view, WORKERS))?;
        times.push(Timed::of_all(time, &views)?);
    }
    Ok(times)
}

async fn run(link: &Link, tasks: u32) -> anyhow::Result<(Vec<TaskId>, Duration)> {
    let mut events = link.bus.subscribe(subject::TASK_EVENTS, None).await?;
    let begun = Instant::now();
    let submit = stream::iter(0..tasks)
        .map(|_| link.submit("fan_out", json!({ "n": WORKERS })))
        .buffer_unordered(AT_A_TIME)
        .try_collect::<Vec<TaskId>>();
    let ids = submit.await?;
    let mut open: HashSet<TaskId> = ids.iter().copied().collect();
    let mut last = begun.elapsed();
    while !open.is_empty() {
        match tokio::time::timeout(SILENCE, events.next()).await {
            Ok(Some(event)) => {
                let id = event.subject.rsplit('.').next().and_then(|id| id.parse().ok());
                if id.is_some_and(|id| open.remove(&id)) {
                    last = begun.elapsed();
                }
            }
            Ok(None) => bail!("the connection to NATS is closed"),
            // Announcements may be lost; the tasks know.
            Err(_) => {
                for id in open.clone() {
                    if link.get(id).await?.state.is_terminal() {
                        open.remove(&id);
                        last = begun.elapsed();
                    }
                }
            }
        }
    }
    Ok((ids, last))
}
