//! The bare pipeline: COPY, publish, pull, one outcome request per pull, insert-only outcome rows,
//! acknowledge. Same servers, same widths of rows and messages; no engine, no second process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tasker_bus::{AckHandle, Bus, Outgoing, PullEvent, PullOptions};
use tasker_messages::subject::message_id;
use tasker_store::Floor;
use tokio::sync::Notify;
use uuid::Uuid;

use super::link::Link;
use super::spent::Meter;

/// Steps that are copied at once, published at once, pulled at a time and on the bus at most.
const COPY: u32 = 10_000;
const PUBLISH: u32 = 2_048;
const PULL: u32 = 512;
const WINDOW: u32 = 4_096;
/// How long a request waits for more outcomes, as in a worker under load.
const GATHER: Duration = Duration::from_millis(5);
/// Outcome requests without an answer.
const UNANSWERED: usize = 4;
const OUTCOMES: &str = "tasker.floor.outcomes";
const STREAM: &str = "TASKER_FLOOR";
const SUBJECT: &str = "tasker.floor.work";
const DURABLE: &str = "floor";

#[derive(Serialize, Deserialize)]
struct Item {
    id: Uuid,
    name: String,
    cursor: String,
}

#[derive(Serialize, Deserialize)]
struct Outcomes {
    ids: Vec<Uuid>,
    results: Vec<String>,
}

/// How far the pipeline is.
#[derive(Default)]
struct Progress {
    copied: AtomicU32,
    acknowledged: AtomicU32,
    moved: Notify,
}

pub(super) async fn measure(
    link: &Link,
    meter: &mut Meter,
    n: u32,
    runs: u32,
) -> anyhow::Result<Vec<Duration>> {
    // What an earlier run has left there that was broken off.
    link.bus.delete_private_stream(STREAM).await?;
    link.bus.ensure_private_stream(STREAM, SUBJECT, DURABLE, &link.settings.streams).await?;
    let mut times = Vec::new();
    for _ in 0..runs {
        let floor = link.store.create_floor().await?;
        let answering = tokio::spawn(answer(link.bus.clone(), floor.clone()));
        meter.begin().await?;
        let time = run(link, &floor, n).await;
        meter.end().await?;
        answering.abort();
        let stored = floor.count().await?;
        floor.remove().await?;
        times.push(time?);
        if stored != u64::from(n) {
            bail!("the bare pipeline stored {stored} of {n} outcomes");
        }
    }
    link.bus.delete_private_stream(STREAM).await?;
    Ok(times)
}

async fn run(link: &Link, floor: &Floor, n: u32) -> anyhow::Result<Duration> {
    let base = Uuid::now_v7().as_u128() & !u128::from(u32::MAX);
    let progress = Arc::new(Progress::default());
    let begun = Instant::now();
    let copy = tokio::spawn(copy(floor.clone(), base, n, Arc::clone(&progress)));
    let publish = tokio::spawn(publish(link.bus.clone(), base, n, Arc::clone(&progress)));
    work(&link.bus, n, &progress).await?;
    let time = begun.elapsed();
    copy.await??;
    publish.await??;
    Ok(time)
}

async fn copy(floor: Floor, base: u128, n: u32, progress: Arc<Progress>) -> anyhow::Result<()> {
    let mut from = 0;
    while from < n {
        let upto = n.min(from + COPY);
        floor.copy_steps(base, from, upto).await?;
        progress.copied.store(upto, Ordering::Release);
        progress.moved.notify_waiters();
        from = upto;
    }
    Ok(())
}

async fn publish(bus: Bus, base: u128, n: u32, progress: Arc<Progress>) -> anyhow::Result<()> {
    let mut from = 0;
    while from < n {
        let moved = progress.moved.notified();
        let copied = progress.copied.load(Ordering::Acquire);
        let room = WINDOW.saturating_sub(from - progress.acknowledged.load(Ordering::Acquire));
        let upto = copied.min(from + room.min(PUBLISH));
        // As in the engine: few larger publishes.
        if upto == from || (room < PUBLISH / 4 && upto < n) {
            // A notification between the look and the wait is not seen: look again soon.
            let _looked_again = tokio::time::timeout(Duration::from_millis(1), moved).await;
            continue;
        }
        let messages = (from..upto).map(|ordinal| message(base, ordinal));
        for result in bus.publish_batch(messages.collect::<Result<_, _>>()?).await {
            result?;
        }
        from = upto;
    }
    Ok(())
}

fn message(base: u128, ordinal: u32) -> anyhow::Result<Outgoing> {
    let id = Uuid::from_u128(base | u128::from(ordinal));
    let cursor = format!(
        r#"{{"batch_id":"{0:03}","start_cursor":{ordinal},"end_cursor":{0},"batch_size":1}}"#,
        ordinal + 1
    );
    let item = Item { id, name: format!("add_one_{:03}", ordinal + 1), cursor };
    Ok(Outgoing {
        subject: SUBJECT.to_owned(),
        message_id: message_id(id, 1),
        payload: serde_json::to_vec(&item)?.into(),
    })
}

/// Pulls, reports what was pulled in one request and acknowledges after the answer.
async fn work(bus: &Bus, n: u32, progress: &Arc<Progress>) -> anyhow::Result<()> {
    let mut puller = bus.pull(STREAM, DURABLE, PullOptions::default());
    let mut reports = tokio::task::JoinSet::new();
    let (mut done, mut items, mut since) = (0, Vec::new(), Instant::now());
    while done < n {
        if puller.credit() < PULL {
            puller.request(PULL).await?;
        }
        let gathered = !items.is_empty();
        let full = tokio::select! {
            biased;
            Some(reported) = reports.join_next(), if !reports.is_empty() => {
                done += reported??;
                false
            }
            event = puller.next(), if reports.len() < UNANSWERED => match event {
                PullEvent::Message(delivery) => {
                    if items.is_empty() {
                        since = Instant::now();
                    }
                    let item: Item = serde_json::from_slice(&delivery.payload)?;
                    items.push((item.id, delivery.handle));
                    items.len() >= PULL as usize
                }
                PullEvent::CreditReturned(_) => false,
                PullEvent::Reset(reason) => bail!("the pull was reset: {reason:?}"),
            },
            () = tokio::time::sleep_until((since + GATHER).into()), if gathered => true,
        };
        if full {
            let set = std::mem::take(&mut items);
            reports.spawn(report(bus.clone(), set, Arc::clone(progress)));
        }
    }
    Ok(())
}

async fn report(
    bus: Bus,
    set: Vec<(Uuid, AckHandle)>,
    progress: Arc<Progress>,
) -> anyhow::Result<u32> {
    let ids: Vec<Uuid> = set.iter().map(|(id, _)| *id).collect();
    let value = |id: &Uuid| format!(r#"{{"value":{}}}"#, id.as_u128() as u32);
    let results = ids.iter().map(value).collect();
    let within = Duration::from_secs(30);
    let stored: u64 = bus.request(OUTCOMES.to_owned(), &Outcomes { ids, results }, within).await?;
    for (_, ack) in &set {
        ack.ack().await;
    }
    progress.acknowledged.fetch_add(set.len() as u32, Ordering::AcqRel);
    progress.moved.notify_waiters();
    u32::try_from(stored).context("more outcomes than there are steps")
}

/// Stores outcomes: one transaction per request.
async fn answer(bus: Bus, floor: Floor) -> anyhow::Result<()> {
    let mut requests = bus.subscribe(OUTCOMES, None).await?;
    let worker = Uuid::now_v7();
    while let Some(request) = requests.next().await {
        let floor = floor.clone();
        tokio::spawn(async move {
            let stored = async {
                let outcomes: Outcomes = serde_json::from_slice(&request.payload)?;
                let stored =
                    floor.insert_outcomes(&outcomes.ids, &outcomes.results, worker).await?;
                Ok::<_, anyhow::Error>(stored)
            };
            let refused = |error: anyhow::Error| {
                tasker_messages::Refusal::new(tasker_messages::code::INTERNAL, format!("{error:#}"))
            };
            request.answer(stored.await.map_err(refused)).await;
        });
    }
    Ok(())
}
