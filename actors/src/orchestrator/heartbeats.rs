//! Listens to workers: leases of what they run, slots that are alive. Sent by the bus; emits slots to
//! dispatch. What is lost when it dies: at most one beat; the next one says the same.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_config::{Settings, WorkerSettings};
use tasker_messages::json::{self, Limits};
use tasker_messages::{Heartbeat, Hint, Namespace, Queue, WorkerId, subject};

use super::Links;
use super::dispatch::DispatchMessage;
use super::node::Node;
use super::offers::Offered;
use crate::loops::Loops;

/// Listens to workers.
pub(crate) struct HeartbeatsActor;

/// What the actor is told.
pub(crate) enum HeartbeatsMessage {
    /// A worker is alive.
    Beat(Namespace, Box<Heartbeat>),
    /// Forget workers that have gone silent.
    Sweep,
}

/// What the actor keeps in mind.
pub(crate) struct HeartbeatsState {
    node: Node,
    links: Links,
    workers: HashMap<(WorkerId, Namespace), Alive>,
    told: Slots,
    /// Whether what workers offer is told at the next sweep: not at each beat, of which there may be
    /// very many at a time.
    offers_changed: bool,
    listener: Loops,
}

/// How many slots each queue has, and whether all of its workers take bundles.
type Slots = HashMap<(Namespace, Queue), (u32, bool)>;

struct Alive {
    seen: Instant,
    recorded: Option<Instant>,
    /// Whether it drains, and has drained.
    draining: (bool, bool),
    slots: Vec<(Queue, u32)>,
    bundles: bool,
    callables: Vec<String>,
    resolves: bool,
}

/// A worker that has been silent for so many beats has no slots.
const MISSED_BEATS: u32 = 3;
/// For a sign of life to come through.
pub(crate) const GRACE: Duration = Duration::from_millis(500);
/// How often a worker's row is written.
const RECORD_EVERY: Duration = Duration::from_secs(5);
/// A worker whose row is older than this has missed a beat, or is gone.
pub(crate) fn recorded_within(settings: &WorkerSettings) -> Duration {
    RECORD_EVERY + settings.heartbeat() + GRACE
}

/// How old the row of a worker is that has vanished with what nats-server delivers again now: it waits for
/// as long as an acknowledgement may take, counted from a sign of progress that can be one and a half times
/// `worker.progress_ms` older than the death. Where that is less than rows are apart, whoever is alive may
/// count as vanished as well.
pub(crate) fn vanished_within(settings: &Settings) -> Range<Duration> {
    let ack_wait = settings.streams.ack_wait();
    recorded_within(&settings.worker).min(ack_wait / 2)..ack_wait * REMEMBERED
}

/// A worker whose row is older than this counts as gone.
pub(crate) fn live_within(settings: &WorkerSettings) -> Duration {
    RECORD_EVERY + settings.heartbeat() * (MISSED_BEATS + 1)
}

/// For how many times as long as an acknowledgement may take a worker that has vanished is remembered: what
/// is delivered again may have waited for a slot.
const REMEMBERED: u32 = 20;
/// Most workers that are remembered.
const MAX_WORKERS: usize = 100_000;

impl Actor for HeartbeatsActor {
    type Msg = HeartbeatsMessage;
    type State = HeartbeatsState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<HeartbeatsMessage>,
        (node, links): (Node, Links),
    ) -> Result<HeartbeatsState, ActorProcessingErr> {
        let mut beats = node.bus.subscribe(subject::BEATS, None).await?;
        let mut listener = Loops::default();
        let actor = myself.clone();
        listener.spawn("heartbeats.beats", async move {
            while let Some(beat) = beats.next().await {
                let namespace =
                    beat.subject.rsplit('.').next().and_then(|n| Namespace::new(n).ok());
                match (namespace, json::read(&beat.payload, Limits::bytes(usize::MAX))) {
                    (Some(namespace), Ok(beat)) => {
                        if actor.cast(HeartbeatsMessage::Beat(namespace, beat)).is_err() {
                            return;
                        }
                    }
                    (_, Err(problem)) => tracing::debug!(%problem, "a heartbeat cannot be read"),
                    (None, _) => {}
                }
            }
        });
        myself.send_interval(Duration::from_secs(1), || HeartbeatsMessage::Sweep);
        let (workers, told) = (HashMap::new(), HashMap::new());
        let offers_changed = false;
        Ok(HeartbeatsState { node, links, workers, told, offers_changed, listener })
    }

    async fn handle(
        &self,
        _: ActorRef<HeartbeatsMessage>,
        message: HeartbeatsMessage,
        state: &mut HeartbeatsState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HeartbeatsMessage::Beat(namespace, beat) => state.beat(namespace, *beat),
            HeartbeatsMessage::Sweep => {
                state.listener.all_go_on()?;
                let silent = state.node.settings.worker.heartbeat() * MISSED_BEATS;
                let before = state.workers.len();
                state.workers.retain(|_, alive| alive.seen.elapsed() <= silent);
                if state.offers_changed || state.workers.len() < before {
                    state.offers_changed = false;
                    state.tell_offers();
                }
                state.tell_slots(true);
            }
        }
        Ok(())
    }
}

impl HeartbeatsState {
    fn beat(&mut self, namespace: Namespace, beat: Heartbeat) {
        let now = Instant::now();
        let key = (beat.worker, namespace.clone());
        if self.workers.len() >= MAX_WORKERS && !self.workers.contains_key(&key) {
            return;
        }
        let alive = self.workers.entry(key).or_insert(Alive {
            seen: now,
            recorded: None,
            draining: (false, false),
            slots: Vec::new(),
            bundles: false,
            callables: Vec::new(),
            resolves: false,
        });
        alive.seen = now;
        let slots = |q: &tasker_messages::QueueLoad| {
            (q.queue.clone(), if beat.draining { 0 } else { q.slots })
        };
        let draining = (beat.draining, beat.drained);
        let slots: Vec<(Queue, u32)> = beat.queues.iter().map(slots).collect();
        // What a worker can do is told at once, how busy it is now and then.
        let record = alive.recorded.is_none_or(|at| now - at >= RECORD_EVERY)
            || alive.draining != draining
            || alive.slots != slots
            || alive.callables != beat.callables;
        let offers_more = alive.slots != slots || alive.callables != beat.callables;
        (alive.slots, alive.draining, alive.bundles) = (slots, draining, beat.bundles);
        if offers_more {
            alive.callables.clone_from(&beat.callables);
            alive.resolves = beat.resolves;
        }
        if record {
            alive.recorded = Some(now);
        }
        self.offers_changed |= offers_more;
        self.tell_slots(false);
        if record || !beat.running.is_empty() {
            store_beat(&self.node, namespace, beat, record);
        }
    }

    /// Tells everybody what can be run.
    fn tell_offers(&self) {
        let mut offers: HashMap<Queue, Offered> = HashMap::new();
        for alive in self.workers.values().filter(|alive| !alive.draining.0) {
            for (queue, _) in &alive.slots {
                let offered = offers.entry(queue.clone()).or_default();
                offered.resolves |= alive.resolves;
                for callable in &alive.callables {
                    if !offered.callables.contains(callable) {
                        offered.callables.insert(callable.clone());
                    }
                }
            }
        }
        self.node.offers.replace(offers);
    }

    /// Tells dispatch how many slots each queue has: where that has changed, or of all of them, since a
    /// dispatch that was started anew knows of none.
    fn tell_slots(&mut self, all: bool) {
        let slots = count_slots(&self.told, &self.workers);
        for ((namespace, queue), (n, bundles)) in news(&self.told, &slots, all) {
            self.links.dispatch.cast(DispatchMessage::Slots(namespace, queue, n, bundles));
        }
        self.told = slots;
    }
}

/// The slots of each queue. One that was known and that nobody serves any more has none.
fn count_slots(known: &Slots, workers: &HashMap<(WorkerId, Namespace), Alive>) -> Slots {
    let mut slots = Slots::new();
    for ((_, namespace), alive) in workers {
        for (queue, n) in &alive.slots {
            let key = (namespace.clone(), queue.clone());
            let (sum, bundles) = slots.entry(key).or_insert((0, true));
            *sum += n;
            *bundles &= alive.bundles;
        }
    }
    for key in known.keys() {
        slots.entry(key.clone()).or_insert((0, false));
    }
    slots
}

/// What is to be told: what has changed, or everything.
fn news(told: &Slots, slots: &Slots, all: bool) -> Slots {
    let is_new = |(key, n): &(&(Namespace, Queue), &(u32, bool))| all || told.get(*key) != Some(*n);
    slots.iter().filter(is_new).map(|(key, n)| (key.clone(), *n)).collect()
}

/// Tells a worker to take nothing more. A hint that is lost is repeated when the worker's next heartbeat
/// is recorded that knows nothing of it.
pub(crate) async fn tell_to_drain(node: &Node, namespace: &Namespace, worker: WorkerId) {
    let hint = Hint::DrainWorker(worker);
    if let Err(error) = node.bus.publish(subject::hint(namespace), &hint).await {
        tracing::debug!(%error, %worker, "a worker was not told to drain; its next heartbeat is answered");
    }
}

/// Writes a beat to the rows, outside of the mailbox.
fn store_beat(node: &Node, namespace: Namespace, beat: Heartbeat, record: bool) {
    let node = node.clone();
    tokio::spawn(async move {
        let lease_ms = node.settings.worker.lease_ms;
        let stored = async {
            if !beat.running.is_empty() {
                node.store.renew_leases(&namespace, beat.worker, &beat.running, lease_ms).await?;
            }
            if record && node.store.record_heartbeat(&namespace, &beat).await? && !beat.draining {
                // Whatever told it so before was lost.
                tell_to_drain(&node, &namespace, beat.worker).await;
            }
            Ok::<_, tasker_store::StoreError>(())
        };
        if let Err(error) = stored.await {
            tracing::warn!(%error, worker = beat.name, "a heartbeat could not be stored");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_counts_as_vanished_when_its_messages_come_again() {
        let loader = tasker_config::Loader::new().expect("the defaults are valid");
        let mut settings = loader.load().expect("the defaults are valid").settings;
        let seconds = |from, to| Duration::from_millis(from)..Duration::from_secs(to);
        // Messages come 7.5 s after a death at the earliest: 15 s after the last sign of progress. Who is
        // alive has a row that is younger, every 5 s with a beat that is due every 2.
        assert_eq!(vanished_within(&settings), seconds(7_500, 300));
        (settings.streams.ack_wait_ms, settings.worker.progress_ms) = (3_000, 1_000);
        assert_eq!(vanished_within(&settings), seconds(1_500, 60));
    }

    #[test]
    fn dispatch_is_told_what_is_new_and_now_and_then_everything() {
        let worker = |id: u128, name: &str, slots, bundles| {
            let queue = Queue::new("default").expect("a name");
            let alive = Alive {
                seen: Instant::now(),
                recorded: None,
                draining: (false, false),
                slots: vec![(queue, slots)],
                bundles,
                callables: Vec::new(),
                resolves: false,
            };
            let id = WorkerId::from_uuid(uuid::Uuid::from_u128(id));
            ((id, Namespace::new(name).expect("a name")), alive)
        };
        let told = |told: &Slots, workers, all| {
            let slots = count_slots(told, &workers);
            let mut news: Vec<(String, (u32, bool))> = news(told, &slots, all)
                .into_iter()
                .map(|(key, n)| (key.0.to_string(), n))
                .collect();
            news.sort();
            (news, slots)
        };
        let row = |name: &str, n, bundles| (name.to_owned(), (n, bundles));
        let workers = [worker(1, "a", 4, false), worker(2, "a", 8, true), worker(1, "b", 4, true)];
        let two = HashMap::from(workers);
        let (first, known) = told(&Slots::new(), two, false);
        assert_eq!(first, [row("a", 12, false), row("b", 4, true)]);
        let one = || HashMap::from([worker(2, "a", 8, true)]);
        let (changed, known) = told(&known, one(), false);
        assert_eq!(changed, [row("a", 8, true), row("b", 0, false)]);
        assert_eq!(told(&known, one(), false).0, []);
        assert_eq!(told(&known, one(), true).0, [row("a", 8, true), row("b", 0, false)]);
    }
}
