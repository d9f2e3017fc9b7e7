//! What there is to be seen, without any judgement.

use std::time::Duration;

use tasker_bus::{Bus, ConsumerLoad, StreamLoad};
use tasker_config::Settings;
use tasker_messages::{Namespace, Queue, Recovery, Scope, WorkerView};
use tasker_store::{Dispatched, Late, Schema, Store};

/// A queue, as both sides know it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct QueueSeen {
    pub(super) namespace: Namespace,
    pub(super) queue: Queue,
    /// Steps that should be on the bus, as the rows say.
    pub(super) outstanding: u64,
    /// The fewest messages that can have brought these.
    pub(super) messages: u64,
    /// Its consumer; `None` if there is none.
    pub(super) load: Option<ConsumerLoad>,
    /// It had something to deliver, workers had room, and nothing moved between two looks.
    pub(super) stood_still: bool,
    /// What its live workers would take more.
    pub(super) free_slots: u64,
    /// How many live workers pull it.
    pub(super) workers: u64,
}

/// What the database says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowsSeen {
    pub(super) schema: Schema,
    pub(super) late: Vec<Late>,
    pub(super) workers: Vec<WorkerView>,
    pub(super) recoveries: Vec<Recovery>,
    pub(super) dispatched: Vec<Dispatched>,
}

/// What the bus says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BusSeen {
    pub(super) streams: Vec<(&'static str, Option<StreamLoad>)>,
    pub(super) queues: Vec<QueueSeen>,
}

/// All of it; the errors of what could not be asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) rows: Result<RowsSeen, String>,
    pub(super) bus: Result<BusSeen, String>,
}

/// How long the bus may take to be reached.
const REACHED: Duration = Duration::from_secs(5);
/// How far apart two looks are at a consumer that seems to stand still.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// Workers and recoveries that are shown.
const MOST: u32 = 1_000;

/// Looks at database and bus.
pub(super) async fn look(settings: &Settings, hours: u32) -> Seen {
    let rows = look_at_rows(settings, hours).await.map_err(|error| error.to_string());
    let none = Vec::new();
    let (dispatched, workers) = match &rows {
        Ok(rows) => (&rows.dispatched, &rows.workers),
        Err(_) => (&none, &Vec::new()),
    };
    let bus = look_at_bus(settings, dispatched, workers).await.map_err(|error| error.to_string());
    Seen { rows, bus }
}

async fn look_at_rows(settings: &Settings, hours: u32) -> anyhow::Result<RowsSeen> {
    let store = Store::connect(&settings.database).await?;
    let schema = store.schema().await?;
    let mut seen = RowsSeen {
        schema,
        late: Vec::new(),
        workers: Vec::new(),
        recoveries: Vec::new(),
        dispatched: Vec::new(),
    };
    // Of a schema that this build does not fit nothing more can be said.
    if schema.check().is_ok() {
        let live_within = settings.worker.heartbeat() * 4 + Duration::from_secs(5);
        seen.late = store.find_late().await?;
        seen.workers = store.list_workers(&Scope::All, live_within, MOST).await?.workers;
        seen.recoveries = store.list_recoveries(hours, MOST).await?;
        seen.dispatched = store.count_dispatched().await?;
    }
    store.close().await;
    Ok(seen)
}

async fn look_at_bus(
    settings: &Settings,
    dispatched: &[Dispatched],
    workers: &[WorkerView],
) -> anyhow::Result<BusSeen> {
    let bus = Bus::connect(&settings.nats, "tasker-doctor").await?;
    bus.wait_connected(REACHED).await?;
    let streams = bus.stream_loads().await?;
    let mut places: Vec<(Namespace, Queue)> = bus.work_durables().await?;
    places.extend(dispatched.iter().map(|d| (d.namespace.clone(), d.queue.clone())));
    places.sort();
    places.dedup();
    let mut queues = Vec::with_capacity(places.len());
    for (namespace, queue) in places {
        let load = bus.consumer_load(&namespace, &queue).await?;
        let rows = dispatched.iter().find(|d| d.namespace == namespace && d.queue == queue);
        let serve =
            |worker: &&WorkerView| worker.live && !worker.draining && worker.namespace == namespace;
        let pulled = workers.iter().filter(serve).flat_map(|worker| &worker.queues);
        let pulled: Vec<_> = pulled.filter(|served| served.queue == queue).collect();
        queues.push(QueueSeen {
            outstanding: rows.map_or(0, |d| d.outstanding),
            messages: rows.map_or(0, |d| d.messages),
            load,
            stood_still: false,
            free_slots: pulled.iter().map(|q| u64::from(q.slots.saturating_sub(q.busy))).sum(),
            workers: pulled.len() as u64,
            namespace,
            queue,
        });
    }
    look_again(&bus, &mut queues).await?;
    Ok(BusSeen { streams, queues })
}

/// Whether what waits could be delivered.
fn could_deliver(seen: &QueueSeen) -> bool {
    seen.load.is_some_and(|load| {
        load.pending > 0
            && load.ack_pending < u64::from(load.max_ack_pending)
            && load.paused_for.is_none()
            && seen.free_slots > 0
    })
}

async fn look_again(bus: &Bus, queues: &mut [QueueSeen]) -> anyhow::Result<()> {
    if !queues.iter().any(could_deliver) {
        return Ok(());
    }
    tokio::time::sleep(BETWEEN_LOOKS).await;
    for seen in queues.iter_mut().filter(|seen| could_deliver(seen)) {
        let now = bus.consumer_load(&seen.namespace, &seen.queue).await?;
        let moves = |load: ConsumerLoad| (load.delivered_stream_seq, load.ack_floor_stream_seq);
        seen.stood_still = now.map(moves) == seen.load.map(moves) && now.is_some();
    }
    Ok(())
}
