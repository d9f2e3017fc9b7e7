//! The bare chain: what three steps in a row ask of the servers, without an engine. A request that is
//! answered when its rows are stored, a message through JetStream, three reports that are each stored before
//! their answers bring the next step, and a wait that is answered with the results: by three connections to
//! the bus and one process, with rows as wide as the engine's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tasker_bus::{Bus, Incoming, Outgoing, PullEvent, PullOptions};
use tasker_messages::subject::message_id;
use tasker_store::Floor;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;

use super::link::Link;
use super::spent::Meter;

/// Steps of each chain, as of W3.
const STEPS: u32 = super::latency::STEPS as u32;
const SUBMIT: &str = "tasker.floor.submit";
const REPORT: &str = "tasker.floor.report";
const WAIT: &str = "tasker.floor.wait";
const STREAM: &str = "TASKER_FLOOR_CHAIN";
const SUBJECT: &str = "tasker.floor.chain";
const DURABLE: &str = "floor";
const WITHIN: Duration = Duration::from_secs(30);

/// A step of a chain.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Step {
    chain: Uuid,
    n: u32,
}

impl Step {
    fn id(self) -> Uuid {
        Uuid::from_u128(self.chain.as_u128() | u128::from(self.n))
    }
}

#[derive(Serialize, Deserialize)]
struct Done {
    step: Step,
    result: Box<RawValue>,
}

/// Who stores and answers.
#[derive(Clone)]
struct Server {
    bus: Bus,
    floor: Floor,
    /// The chain that has ended last; there is one at a time.
    ended: Arc<watch::Sender<Uuid>>,
}

pub(super) async fn measure(
    link: &Link,
    meter: &mut Meter,
    chains: u32,
    runs: u32,
) -> anyhow::Result<Vec<Vec<Duration>>> {
    // What an earlier run has left there that was broken off.
    link.bus.delete_private_stream(STREAM).await?;
    link.bus.ensure_private_stream(STREAM, SUBJECT, DURABLE, &link.settings.streams).await?;
    let floor = link.store.create_floor().await?;
    let mut tasks = JoinSet::new();
    let measured = async {
        serve_all(link, floor.clone(), &mut tasks).await?;
        tokio::select! {
            measured = measure_all(link, meter, chains, runs) => measured,
            Some(ended) = tasks.join_next() => Err(why(ended)),
        }
    };
    let measured = measured.await;
    tasks.shutdown().await;
    floor.remove().await?;
    link.bus.delete_private_stream(STREAM).await?;
    measured
}

/// Why one of those ended who should go on.
fn why(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("the bare chain has ended"),
        Ok(Err(error)) => error,
        Err(error) => error.into(),
    }
}

/// Starts the server and the worker, each with a connection of its own.
async fn serve_all(
    link: &Link,
    floor: Floor,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let server = Bus::connect(&link.settings.nats, "tasker-bench-server").await?;
    let worker = Bus::connect(&link.settings.nats, "tasker-bench-worker").await?;
    for bus in [&server, &worker] {
        bus.wait_connected(WITHIN).await?;
    }
    let server = Server { bus: server, floor, ended: Arc::new(watch::Sender::new(Uuid::nil())) };
    for subject in [SUBMIT, REPORT, WAIT] {
        let requests = server.bus.subscribe(subject, None).await?;
        tasks.spawn(serve(server.clone(), subject, requests));
    }
    // An answer on this connection says that the bus has the subscriptions.
    server.bus.stream_epoch().await?;
    tasks.spawn(work(worker));
    Ok(())
}

async fn measure_all(
    link: &Link,
    meter: &mut Meter,
    chains: u32,
    runs: u32,
) -> anyhow::Result<Vec<Vec<Duration>>> {
    for _ in 0..5 {
        one(&link.bus).await?;
    }
    let mut all = Vec::new();
    for _ in 0..runs {
        let mut times = Vec::with_capacity(chains as usize);
        meter.begin().await?;
        for _ in 0..chains {
            times.push(one(&link.bus).await?);
        }
        meter.end().await?;
        all.push(times);
    }
    Ok(all)
}

/// Submits a chain and waits for its results.
async fn one(bus: &Bus) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let id = Uuid::from_u128(Uuid::now_v7().as_u128() & !u128::from(u32::MAX));
    let chain: Uuid = bus.request(SUBMIT.to_owned(), &id, WITHIN).await?;
    let results: Vec<String> = bus.request(WAIT.to_owned(), &chain, WITHIN).await?;
    let time = begun.elapsed();
    let expected: Vec<String> = (1..=STEPS).map(|n| format!(r#"{{"value":{n}}}"#)).collect();
    if results != expected {
        bail!("the bare chain came to {results:?}");
    }
    Ok(time)
}

async fn serve(
    server: Server,
    subject: &'static str,
    mut requests: tasker_bus::Subscription,
) -> anyhow::Result<()> {
    // One after the other: there is one chain at a time.
    while let Some(request) = requests.next().await {
        match subject {
            SUBMIT => server.submit(&request).await?,
            REPORT => server.report(&request).await?,
            _ => server.wait(&request).await?,
        }
    }
    bail!("nothing more is asked for through {subject}")
}

impl Server {
    async fn submit(&self, request: &Incoming) -> anyhow::Result<()> {
        let chain: Uuid = serde_json::from_slice(&request.payload)?;
        self.floor.insert_steps(&ids(chain), chain).await?;
        let first = Step { chain, n: 0 };
        let message = Outgoing {
            subject: SUBJECT.to_owned(),
            message_id: message_id(first.id(), 1),
            payload: serde_json::to_vec(&first)?.into(),
        };
        let publish = self.bus.publish_jetstream(vec![message]);
        let ((), published) = tokio::join!(request.answer(Ok(chain)), publish);
        published.into_iter().try_for_each(|sent| sent.map(|_| ())).context("the first step")
    }

    async fn report(&self, request: &Incoming) -> anyhow::Result<()> {
        let Done { step, result } = serde_json::from_slice(&request.payload)?;
        let (ids, results) = ([step.id()], [result.get().to_owned()]);
        self.floor.insert_outcomes(&ids, &results, step.chain).await?;
        let next = Some(Step { n: step.n + 1, ..step }).filter(|next| next.n < STEPS);
        if next.is_none() {
            self.ended.send_replace(step.chain);
        }
        request.answer(Ok(next)).await;
        Ok(())
    }

    async fn wait(&self, request: &Incoming) -> anyhow::Result<()> {
        let chain: Uuid = serde_json::from_slice(&request.payload)?;
        self.ended.subscribe().wait_for(|ended| *ended == chain).await?;
        request.answer(Ok(self.floor.results(&ids(chain)).await?)).await;
        Ok(())
    }
}

fn ids(chain: Uuid) -> Vec<Uuid> {
    (0..STEPS).map(|n| Step { chain, n }.id()).collect()
}

/// Runs chains from their first steps to their ends.
async fn work(bus: Bus) -> anyhow::Result<()> {
    let mut puller = bus.pull(STREAM, DURABLE, PullOptions::default());
    loop {
        if puller.credit() < 32 {
            puller.request(64).await?;
        }
        let delivery = match puller.next().await {
            PullEvent::Message(delivery) => delivery,
            PullEvent::CreditReturned(_) => continue,
            PullEvent::Reset(reason) => bail!("the pull was reset: {reason:?}"),
        };
        let mut step: Option<Step> = Some(serde_json::from_slice(&delivery.payload)?);
        while let Some(now) = step {
            let result = RawValue::from_string(format!(r#"{{"value":{}}}"#, now.n + 1))?;
            let done = Done { step: now, result };
            step = bus.request(REPORT.to_owned(), &done, WITHIN).await?;
            if now.n == 0 {
                delivery.handle.ack().await;
            }
        }
    }
}
