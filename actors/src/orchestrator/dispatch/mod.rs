//! Puts ready steps on the bus, inside a window per namespace and queue. Sent by every actor that
//! makes steps ready, by heartbeats and by its own sweep; emits work items. What is lost when it
//! dies: nothing; the rows of ready steps are the outbox, and every node sweeps them.

mod bundles;
mod lane;
mod publish;
mod recording;
mod sweep;

pub(crate) use self::lane::LaneKey;
pub(crate) use self::publish::{adapt as adapt_queue, complete, ensure as ensure_queue, work_item};
pub(crate) use self::sweep::PUBLISHER_LEASE;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_bus::ConsumerLoad;
use tasker_messages::{BatchId, Namespace, Queue, StepId};
use tasker_store::{Finished, KnownResults, OpenBatch, ReadyStep};
use tasker_workflow::WindowLimits;

use self::lane::{FRESH, Lane, Prepared, Published};
use self::recording::{Dispatch, Recording};
use self::sweep::claim_batches;
use super::Links;
use super::calm::Calm;
use super::node::{Node, run_detached};

/// Puts ready steps on the bus.
pub(crate) struct DispatchActor;

/// What the actor is told.
pub(crate) enum DispatchMessage {
    /// These steps have become ready.
    Ready(Vec<StepId>),
    /// These steps have become ready, as the transaction left them, which also knows these results
    /// of their parents.
    Released(Vec<ReadyStep>, KnownResults),
    /// These batches were sealed by this node.
    Sealed(Vec<BatchId>),
    /// Steps with what is needed to publish them.
    Loaded(Vec<Prepared>),
    /// The same, of steps that a sweep has found.
    Swept(u64, Vec<Prepared>),
    /// Batches whose members this node publishes.
    Batches(Vec<OpenBatch>),
    /// These steps of these queues have ended.
    Finished(Namespace, HashMap<Queue, Finished>),
    /// So many members remain of these batches, which limit how many are outstanding.
    Remaining(Namespace, Vec<(BatchId, u32)>),
    /// So many slots are alive on this queue, and whether all of its workers take bundles.
    Slots(Namespace, Queue, u32, bool),
    /// The limits of these queues are other ones than before.
    Limited(Vec<LaneKey>),
    /// The bus was asked how much is outstanding.
    Load(LaneKey, Option<ConsumerLoad>),
    /// A lane without room may have some by now.
    Pump(LaneKey),
    /// Something was published.
    Published(LaneKey, Box<Published>),
    /// Look for ready steps that were not published.
    Sweep,
    /// Record which dispatches are on the bus.
    Record,
    /// A recording has ended.
    Recorded,
    /// Streams were made anew: durables must be checked.
    BusReset,
}

/// What the actor keeps in mind.
pub(crate) struct DispatchState {
    node: Node,
    lanes: HashMap<LaneKey, Lane>,
    recording: Recording,
    calm: Calm,
    /// When limits were looked at last.
    limits_read: Instant,
}

/// Steps that were ready this long ago should be on the bus.
const UNSENT_AFTER: Duration = Duration::from_millis(1_500);

impl Actor for DispatchActor {
    type Msg = DispatchMessage;
    type State = DispatchState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<DispatchMessage>,
        (node, _): (Node, Links),
    ) -> Result<DispatchState, ActorProcessingErr> {
        myself.send_interval(node.settings.dispatch.sweep_interval(), || DispatchMessage::Sweep);
        Ok(DispatchState {
            node,
            lanes: HashMap::new(),
            recording: Recording::default(),
            calm: Calm::default(),
            limits_read: Instant::now(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<DispatchMessage>,
        message: DispatchMessage,
        state: &mut DispatchState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DispatchMessage::Ready(steps) => state.load(&myself, steps),
            DispatchMessage::Released(steps, known) => state.complete(&myself, steps, known),
            DispatchMessage::Sealed(batches) => state.claim(&myself, batches),
            DispatchMessage::Loaded(steps) => state.add_steps(&myself, steps, &HashSet::new()),
            DispatchMessage::Swept(number, steps) => {
                if let Some(recorded) = state.recording.sweep_ends(number) {
                    let mut known = state.on_their_way();
                    known.extend(recorded);
                    state.add_steps(&myself, steps, &known);
                }
            }
            DispatchMessage::Batches(batches) => state.add_batches(&myself, batches),
            DispatchMessage::Finished(namespace, queues) => {
                state.finished(&myself, &namespace, queues);
            }
            DispatchMessage::Remaining(namespace, batches) => {
                state.remaining(&myself, &namespace, &batches);
            }
            DispatchMessage::Slots(namespace, queue, slots, bundles) => {
                let key = (namespace, queue);
                let lane = state.lane(&key);
                (lane.slots, lane.bundling.taken) = (slots, bundles);
                state.pump(&myself, &key);
            }
            DispatchMessage::Limited(keys) => state.limited(&myself, &keys),
            DispatchMessage::Load(key, load) => {
                let acks_were_lost = state.node.acks_were_lost();
                let lane = state.lane(&key);
                lane.busy = false;
                lane.observe(load, acks_were_lost, Instant::now());
                state.pump(&myself, &key);
            }
            DispatchMessage::Pump(key) => {
                state.lane(&key).looks_soon = false;
                state.pump(&myself, &key);
            }
            DispatchMessage::Published(key, published) => {
                state.published(&myself, &key, &published)
            }
            DispatchMessage::Sweep => {
                // What it publishes it holds on to by these looks.
                if state.lanes.values().any(|lane| lane.busy || lane.waits()) {
                    state.calm.disturb();
                }
                if state.calm.tick() {
                    state.sweep(&myself);
                }
                state.sweep_limits(&myself);
            }
            DispatchMessage::Record => state.record(&myself),
            DispatchMessage::Recorded => {
                state.recording.end();
                state.plan_recording(&myself);
            }
            DispatchMessage::BusReset => {
                state.lanes.values_mut().for_each(Lane::forget_durable);
            }
        }
        Ok(())
    }
}

impl DispatchState {
    fn lane(&mut self, key: &LaneKey) -> &mut Lane {
        let lane = self.lanes.entry(key.clone()).or_insert_with(Lane::new);
        lane.max_running = self.node.limits.max_running(&key.0, &key.1);
        lane
    }

    fn limits(&mut self, key: &LaneKey) -> WindowLimits {
        let settings = &self.node.settings.dispatch;
        let limits = WindowLimits { min: settings.window_min, max: settings.window_max };
        self.lane(key).bounds(limits)
    }

    /// A durable that was made meanwhile may have the former limit: it is ensured again. A window that
    /// has grown is filled.
    fn limited(&mut self, myself: &ActorRef<DispatchMessage>, keys: &[LaneKey]) {
        for key in keys {
            self.lane(key).forget_durable();
            self.pump(myself, key);
        }
    }

    fn load(&mut self, myself: &ActorRef<DispatchMessage>, steps: Vec<StepId>) {
        // If this fails, sweeps find them.
        self.calm.disturb();
        let node = self.node.clone();
        let work =
            async move { DispatchMessage::Loaded(publish::prepare(&node, &steps, false).await) };
        run_detached(myself, work, || DispatchMessage::Loaded(Vec::new()));
    }

    fn complete(
        &mut self,
        myself: &ActorRef<DispatchMessage>,
        steps: Vec<ReadyStep>,
        known: KnownResults,
    ) {
        self.calm.disturb();
        let node = self.node.clone();
        let work = async move {
            DispatchMessage::Loaded(publish::complete(&node, steps, &known, false).await)
        };
        run_detached(myself, work, || DispatchMessage::Loaded(Vec::new()));
    }

    fn claim(&mut self, myself: &ActorRef<DispatchMessage>, batches: Vec<BatchId>) {
        // If this fails, sweeps find them.
        self.calm.disturb();
        let node = self.node.clone();
        let work =
            async move { DispatchMessage::Batches(claim_batches(&node, Some(batches)).await) };
        run_detached(myself, work, || DispatchMessage::Batches(Vec::new()));
    }

    fn add_steps(
        &mut self,
        myself: &ActorRef<DispatchMessage>,
        steps: Vec<Prepared>,
        known: &HashSet<Dispatch>,
    ) {
        let mut touched = Vec::new();
        for prepared in steps.into_iter().filter(|prepared| !known.contains(&prepared.dispatch())) {
            let key = (prepared.step.namespace.clone(), prepared.step.queue.clone());
            self.lane(&key).add_step(prepared);
            if !touched.contains(&key) {
                touched.push(key);
            }
        }
        if !touched.is_empty() {
            self.calm.disturb();
        }
        touched.iter().for_each(|key| self.pump(myself, key));
    }

    /// What is being published, or was and is not recorded yet: a sweep finds it, although it is sent.
    fn on_their_way(&self) -> HashSet<Dispatch> {
        let in_lanes = self.lanes.values().flat_map(|lane| lane.under_way.iter().copied());
        in_lanes.chain(self.recording.all()).collect()
    }

    fn add_batches(&mut self, myself: &ActorRef<DispatchMessage>, batches: Vec<OpenBatch>) {
        let mut touched = Vec::new();
        for batch in batches {
            let key = (batch.namespace.clone(), batch.queue.clone());
            self.lane(&key).add_batch(batch);
            if !touched.contains(&key) {
                touched.push(key);
            }
        }
        if !touched.is_empty() {
            self.calm.disturb();
        }
        touched.iter().for_each(|key| self.pump(myself, key));
    }

    fn finished(
        &mut self,
        myself: &ActorRef<DispatchMessage>,
        namespace: &Namespace,
        queues: HashMap<Queue, Finished>,
    ) {
        self.calm.disturb();
        let now = Instant::now();
        for (queue, finished) in queues {
            let key = (namespace.clone(), queue);
            self.lane(&key).finished(finished, now);
            self.pump(myself, &key);
        }
    }

    fn remaining(
        &mut self,
        myself: &ActorRef<DispatchMessage>,
        namespace: &Namespace,
        batches: &[(BatchId, u32)],
    ) {
        let lanes = self.lanes.iter_mut().filter(|(key, _)| key.0 == *namespace);
        let touched: Vec<LaneKey> = lanes
            .filter_map(|(key, lane)| lane.note_remaining(batches).then(|| key.clone()))
            .collect();
        touched.iter().for_each(|key| self.pump(myself, key));
    }

    /// Publishes what fits into the window of a lane, if something waits and nothing is under way.
    fn pump(&mut self, myself: &ActorRef<DispatchMessage>, key: &LaneKey) {
        let limits = self.limits(key);
        let (quantum, bundle_max) =
            (self.node.settings.dispatch.quantum, self.node.settings.dispatch.bundle_max);
        let lane = self.lane(key);
        if lane.busy || !lane.waits() {
            return;
        }
        if lane.must_look(limits, Instant::now()) {
            lane.busy = true;
            self.look(myself, key.clone());
            return;
        }
        let work = lane.take(limits, quantum, bundle_max);
        if work.steps.is_empty() && work.spans.is_empty() {
            if lane.is_to_look_soon(limits) {
                let key = key.clone();
                myself.send_after(FRESH, || DispatchMessage::Pump(key));
            }
            return;
        }
        lane.busy = true;
        // Should it never end, nobody knows what was published.
        let dropped = work.spans.iter().map(|span| span.batch.id).collect();
        let unknown = Published { dropped, ..Published::default() };
        let (node, lane_key, lost) = (self.node.clone(), key.clone(), key.clone());
        let work = async move {
            let published = publish::publish(&node, &lane_key, work).await;
            DispatchMessage::Published(lane_key, Box::new(published))
        };
        run_detached(myself, work, || DispatchMessage::Published(lost, Box::new(unknown)));
    }

    fn look(&self, myself: &ActorRef<DispatchMessage>, key: LaneKey) {
        let (node, lost) = (self.node.clone(), key.clone());
        let work = async move {
            let load = node.bus.consumer_load(&key.0, &key.1).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "the bus did not say how much is outstanding");
                None
            });
            DispatchMessage::Load(key, load)
        };
        run_detached(myself, work, || DispatchMessage::Load(lost, None));
    }

    fn published(
        &mut self,
        myself: &ActorRef<DispatchMessage>,
        key: &LaneKey,
        published: &Published,
    ) {
        let lane = self.lane(key);
        lane.busy = false;
        lane.settle(published);
        self.recording.add(&published.steps);
        self.plan_recording(myself);
        if published.failed.is_empty() && published.dropped.is_empty() {
            self.pump(myself, key);
        } else {
            self.calm.disturb();
        }
    }

    fn plan_recording(&mut self, myself: &ActorRef<DispatchMessage>) {
        if let Some(after) = self.recording.plan() {
            myself.send_after(after, || DispatchMessage::Record);
        }
    }

    fn record(&mut self, myself: &ActorRef<DispatchMessage>) {
        let sent = self.recording.begin();
        if sent.is_empty() {
            return;
        }
        let node = self.node.clone();
        let work = async move {
            if let Err(error) = node.store.mark_sent(&sent).await {
                tracing::warn!(%error, steps = sent.len(), "published steps were not recorded; a sweep publishes them again");
            }
            DispatchMessage::Recorded
        };
        run_detached(myself, work, || DispatchMessage::Recorded);
    }
}
