//! Gives signs of life: heartbeats to the orchestrators, in-progress acknowledgements to the bus;
//! and listens to hints. What is lost when it dies: a beat, which the next one makes up for.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_bus::{Bus, Incoming};
use tasker_messages::{AttemptFinished, Heartbeat, Hint, Namespace, QueueLoad, json, subject};

use super::cancelled::Stopped;
use super::core::{Core, Stage};
use super::held::HeldSteps;
use super::judge::{failed, timed_out};
use super::place::Place;
use crate::loops::{Loops, tell_of_connections};

/// Gives signs of life.
pub(crate) struct HeartbeatActor;

/// What the actor is told.
pub(crate) enum HeartbeatMessage {
    /// Tell the orchestrators what runs.
    Beat,
    /// There is a new connection: tell at once, so that leases are renewed before they end.
    Reconnected,
    /// Keep what is held from being delivered again.
    Extend,
    /// Look for handlers that do not come back.
    LookForOverdue,
}

/// What the actor keeps in mind: its listeners end with it.
pub(crate) struct HeartbeatState {
    core: Arc<Core>,
    listeners: Loops,
}

/// Most steps that one heartbeat lists; whoever holds more sends several.
const MAX_LISTED: usize = 1_024;
/// How often, and how long after their timeout, handlers are looked for that block their thread.
const OVERDUE: Duration = Duration::from_millis(250);

impl Actor for HeartbeatActor {
    type Msg = HeartbeatMessage;
    type State = HeartbeatState;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        myself: ActorRef<HeartbeatMessage>,
        core: Arc<Core>,
    ) -> Result<HeartbeatState, ActorProcessingErr> {
        let mut listeners = Loops::default();
        listen_to_hints(&mut listeners, &core).await?;
        let connection = core.bus.connection();
        let told =
            tell_of_connections(connection, myself.clone(), || HeartbeatMessage::Reconnected);
        listeners.spawn("worker_heartbeat.connection", told);
        let settings = &core.settings.worker;
        myself.send_interval(settings.heartbeat(), || HeartbeatMessage::Beat);
        myself.send_interval(settings.progress(), || HeartbeatMessage::Extend);
        myself.send_interval(OVERDUE, || HeartbeatMessage::LookForOverdue);
        Ok(HeartbeatState { core, listeners })
    }

    async fn handle(
        &self,
        _: ActorRef<HeartbeatMessage>,
        message: HeartbeatMessage,
        state: &mut HeartbeatState,
    ) -> Result<(), ActorProcessingErr> {
        let core = &state.core;
        match message {
            HeartbeatMessage::Beat => {
                state.listeners.all_go_on()?;
                beat(core, named_from(core)).await;
            }
            HeartbeatMessage::Reconnected => beat(core, Duration::ZERO).await,
            HeartbeatMessage::Extend => extend(core).await,
            HeartbeatMessage::LookForOverdue => end_overdue(core),
        }
        Ok(())
    }
}

/// How long a step must have been held to be named. After a connection was lost all are: what nobody names
/// then counts as lost.
fn named_from(core: &Core) -> Duration {
    let settings = &core.settings.worker;
    let is_new = core.bus.connection().borrow().replaced_another_within(settings.lease());
    if is_new { Duration::ZERO } else { settings.heartbeat() }
}

async fn listen_to_hints(
    listeners: &mut Loops,
    core: &Arc<Core>,
) -> Result<(), ActorProcessingErr> {
    let subjects: Vec<String> = match &core.serves.namespaces {
        Some(named) => named.iter().map(subject::hint).collect(),
        None => vec![subject::HINTS.to_owned()],
    };
    for subject in subjects {
        let mut hints = core.bus.subscribe(&subject, None).await?;
        let core = Arc::clone(core);
        listeners.spawn("worker_heartbeat.hints", async move {
            while let Some(hint) = hints.next().await {
                heed(&core, &hint);
            }
        });
    }
    Ok(())
}

fn heed(core: &Arc<Core>, incoming: &Incoming) {
    let namespace = incoming.subject.rsplit('.').next().and_then(|n| n.parse::<Namespace>().ok());
    let hint = json::decode::<Hint>(&incoming.payload);
    match (incoming.protocol_ok(), namespace, hint) {
        (Ok(()), Some(namespace), Ok(Hint::TaskCancelled(task))) => {
            core.cancelled.stop(namespace, Stopped::Task(task));
        }
        (Ok(()), Some(namespace), Ok(Hint::BatchStopped(batch))) => {
            core.cancelled.stop(namespace, Stopped::batch(batch));
        }
        (Ok(()), Some(_), Ok(Hint::DrainWorker(worker))) => {
            if worker == core.id && core.raise_stage(Stage::Draining) {
                let core = Arc::clone(core);
                tokio::spawn(async move { core.stand_down().await });
            }
        }
        _ => tracing::debug!(subject = incoming.subject, "a hint cannot be read"),
    }
}

/// Tells each namespace what the worker pulls and which of its steps have been held for longer than
/// `age`.
pub(super) async fn beat(core: &Core, age: Duration) {
    core.meters.busy.set(core.ledger.busy());
    beat_in(core, &core.places(), age).await;
}

/// The same in the namespaces of these places.
pub(super) async fn beat_in(core: &Core, wanted: &[Arc<Place>], age: Duration) {
    let places = core.places();
    let mut namespaces: Vec<&Arc<Place>> = wanted.iter().collect();
    namespaces.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    namespaces.dedup_by(|a, b| a.namespace == b.namespace);
    for place in namespaces {
        let queues = places.iter().filter(|other| other.namespace == place.namespace);
        let queues = queues.map(|place| QueueLoad {
            queue: place.queue.clone(),
            slots: core.settings.worker.slots,
            busy: core.held.count(place),
        });
        let mut beat = Heartbeat {
            worker: core.id,
            name: core.name.clone(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            queues: queues.collect(),
            callables: core.registry.callables().map(str::to_owned).collect(),
            resolves: core.registry.resolves(),
            running: Vec::new(),
            draining: core.stage() != Stage::Serving,
            drained: core.stage() == Stage::Drained,
            bundles: true,
        };
        let mut unnamed = core.held.running(place, age);
        loop {
            beat.running = unnamed.split_off(unnamed.len().saturating_sub(MAX_LISTED));
            if let Err(error) = core.bus.publish(subject::beat(&place.namespace), &beat).await {
                tracing::warn!(%error, "no heartbeat");
            }
            if unnamed.is_empty() {
                break;
            }
        }
    }
}

/// Starts the time of old deliveries anew. Younger ones have enough of it until the next round.
async fn extend(core: &Core) {
    if !is_connected(&core.bus) {
        // What is queued now would be sent late and all at once.
        return;
    }
    for ack in core.held.to_extend(core.settings.worker.progress() / 2) {
        ack.in_progress().await;
    }
}

fn is_connected(bus: &Bus) -> bool {
    bus.connection().borrow().connected
}

/// Reports handlers that block their thread beyond their timeout. Their tasks cannot be stopped;
/// they keep their slots until they come back.
fn end_overdue(core: &Arc<Core>) {
    for overdue in HeldSteps::take_overdue(core, OVERDUE) {
        let (step, timeout) = (overdue.hold.step_id, overdue.timeout);
        tracing::warn!(step.id = %step, ?timeout, "a handler blocks its thread beyond its timeout");
        let attempt = AttemptFinished {
            step_id: step,
            attempt: overdue.attempt,
            dispatch_seq: overdue.dispatch_seq,
            kind: overdue.kind,
            has_schema: false,
            has_events: true,
            execution_ms: u32::try_from(overdue.ran.as_millis()).unwrap_or(u32::MAX),
            outcome: failed(timed_out(timeout)),
        };
        core.meters.failed.increment(1);
        let core = Arc::clone(core);
        tokio::spawn(async move {
            core.outbox.push(attempt, overdue.place, overdue.node, overdue.hold).await;
        });
    }
}
