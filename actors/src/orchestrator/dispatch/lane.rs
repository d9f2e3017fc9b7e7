//! One lane: a namespace and queue, its window, and what waits to be put on the bus.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tasker_bus::ConsumerLoad;
use tasker_messages::{BatchId, Namespace, Queue, StepId};
use tasker_store::{Finished, OpenBatch, ReadyStep};
use tasker_workflow::{Source, WindowLimits, publishable, share_out, window_size};

use super::UNSENT_AFTER;
use super::bundles::Bundling;
use super::publish::WRITTEN_FOR;
use super::recording::Dispatch;

/// What a lane serves.
pub(crate) type LaneKey = (Namespace, Queue);

/// A step that is published by itself.
pub(crate) struct Prepared {
    pub(crate) step: ReadyStep,
    /// The shared part, if it is small enough to travel along.
    pub(crate) shared: Option<Arc<RawValue>>,
    /// Whether a sweep found it: another copy may be on the bus.
    pub(crate) swept: bool,
}

impl Prepared {
    pub(crate) fn dispatch(&self) -> Dispatch {
        (self.step.id, self.step.dispatch_seq)
    }
}

/// The shared part of a batch's members.
#[derive(Clone)]
pub(crate) enum MemberShared {
    Unknown,
    /// It does not travel: each worker asks for it once.
    OnRequest,
    Inline(Arc<RawValue>),
}

/// A batch whose members this node publishes.
pub(crate) struct LaneBatch {
    pub(crate) open: OpenBatch,
    pub(crate) shared: MemberShared,
    /// Members below this ordinal may have been published by another node: they must claim.
    claim_below: u32,
    /// What it is owed of the room of the lane.
    credit: f64,
}

impl LaneBatch {
    fn new(open: OpenBatch) -> Self {
        let claim_below = if open.taken_over { open.published_upto + MAX_WORK } else { 0 };
        Self { open, shared: MemberShared::Unknown, claim_below, credit: 0.0 }
    }

    fn source(&self) -> Source {
        Source {
            priority: self.open.priority,
            waiting: self.publishable(),
            begins: self.open.published_upto < BEGINNING,
            credit: self.credit,
        }
    }

    /// Members of a batch that limits how many are outstanding are not bundled: it counts them one by one.
    fn span(&self, members: u32, bundle: u32) -> Span {
        Span {
            batch: self.open.clone(),
            shared: self.shared.clone(),
            from: self.open.published_upto,
            upto: self.open.published_upto + members,
            claim_below: self.claim_below,
            bundle: if self.open.parallelism.is_none() { bundle } else { 1 },
        }
    }

    fn publishable(&self) -> u32 {
        let OpenBatch { expected, published_upto, ended, parallelism, .. } = self.open;
        publishable(expected, published_upto, ended, parallelism)
    }
}

/// Members `[from, upto)` of one batch.
#[derive(Clone)]
pub(crate) struct Span {
    pub(crate) batch: OpenBatch,
    pub(crate) shared: MemberShared,
    pub(crate) from: u32,
    pub(crate) upto: u32,
    pub(crate) claim_below: u32,
    /// How many of them may come in one message.
    pub(crate) bundle: u32,
}

/// What is published at once.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) steps: Vec<Prepared>,
    pub(crate) spans: Vec<Span>,
    /// What was known of the durable when this was taken.
    pub(crate) ensured: bool,
    generation: u32,
}

impl Work {
    /// What has been published of it so far: nothing.
    pub(crate) fn unpublished(&self) -> Published {
        Published { ensured: self.ensured, generation: self.generation, ..Published::default() }
    }
}

/// What has been published.
#[derive(Default)]
pub(crate) struct Published {
    /// Steps that are on the bus, by dispatch.
    pub(crate) steps: Vec<Dispatch>,
    /// Batches with the members published now and the shared part as it was read.
    pub(crate) spans: Vec<(BatchId, u32, MemberShared)>,
    /// Batches that are left to others, or to a later sweep.
    pub(crate) dropped: Vec<BatchId>,
    /// Steps that the bus did not take; a sweep finds them.
    pub(crate) failed: Vec<StepId>,
    /// Members that were sent, and the messages that bring them.
    pub(crate) sent: (u32, u32),
    /// Whether the durable of the lane is known to exist now.
    pub(crate) ensured: bool,
    pub(crate) generation: u32,
}

/// Steps that wait in a lane; a sweep finds what does not fit.
const MAX_WAITING: usize = 8_192;
/// Steps of one publish; a larger one would hold up what becomes ready meanwhile.
const MAX_WORK: u32 = 2_048;
/// Members that a batch has on the bus before it counts as one of the large ones.
const BEGINNING: u32 = 2_048;
/// An occupancy read from the bus is trusted for this long when the window is nearly full.
pub(super) const FRESH: Duration = Duration::from_millis(20);

pub(crate) struct Lane {
    steps: VecDeque<Prepared>,
    queued: HashSet<StepId>,
    /// Single steps that are being published.
    pub(crate) under_way: Vec<Dispatch>,
    batches: Vec<LaneBatch>,
    /// A publish or a look at the bus is under way.
    pub(crate) busy: bool,
    /// The durable exists, as far as this node knows.
    pub(crate) ensured: bool,
    /// Rises when what is known of the durable becomes void: a publish that was under way then must
    /// not say that it exists.
    generation: u32,
    pub(crate) slots: u32,
    /// How many of its steps workers may hold at a time.
    pub(crate) max_running: Option<u32>,
    outstanding: u32,
    looked_at: Option<Instant>,
    rate: Rate,
    pub(crate) bundling: Bundling,
    steps_each: StepsEach,
    /// Steps have ended since it was looked at, so that there may be more room than is known.
    has_moved: bool,
    /// A look is planned.
    pub(crate) looks_soon: bool,
    /// Something was published since the last sweep.
    served: bool,
    /// Nothing was, although something waits.
    starved: bool,
}

impl Lane {
    pub(crate) fn new() -> Self {
        Self {
            steps: VecDeque::new(),
            queued: HashSet::new(),
            under_way: Vec::new(),
            batches: Vec::new(),
            busy: false,
            ensured: false,
            generation: 0,
            slots: 0,
            max_running: None,
            outstanding: 0,
            looked_at: None,
            rate: Rate::new(Instant::now()),
            bundling: Bundling::default(),
            steps_each: StepsEach::default(),
            has_moved: false,
            looks_soon: false,
            served: false,
            starved: false,
        }
    }

    /// Whether it waits since before the last sweep, which asks this each time: other nodes, whose
    /// steps end, fill a small window before this one sees room.
    pub(crate) fn note_sweep(&mut self) {
        let served = std::mem::take(&mut self.served);
        self.starved = self.waits() && !served;
    }

    /// The bounds of its window. One that is starved may go beyond those that fill it, once.
    pub(crate) fn bounds(&self, limits: WindowLimits) -> WindowLimits {
        let share = |limit: u32| if self.starved { limit.saturating_mul(2) } else { limit };
        limits.within(self.max_running.map(share))
    }

    /// Of what sweeps find in a limited queue, no more is kept than there may soon be room for: it may
    /// wait in another node, too.
    pub(crate) fn add_step(&mut self, prepared: Prepared) {
        let most = match self.max_running {
            Some(limit) if prepared.swept => (limit as usize).saturating_mul(2),
            _ => MAX_WAITING,
        };
        if self.steps.len() < most.min(MAX_WAITING) && self.queued.insert(prepared.step.id) {
            self.steps.push_back(prepared);
        }
    }

    pub(crate) fn add_batch(&mut self, open: OpenBatch) {
        if let Some(known) = self.batches.iter_mut().find(|b| b.open.id == open.id) {
            // Also less than before: a repair opens members that had ended.
            known.open.ended = open.ended;
            // It has waited for a while, and may have been left to others.
            known.open.written = None;
            if open.from_another {
                known.claim_below = known.claim_below.max(open.published_upto + MAX_WORK);
            }
        } else {
            self.bundling.begin(&open.worker_template);
            self.batches.push(LaneBatch::new(open));
        }
    }

    /// Takes note of how many members of batches remain. Says whether any of them is published here.
    pub(crate) fn note_remaining(&mut self, batches: &[(BatchId, u32)]) -> bool {
        let mut any = false;
        for (id, remaining) in batches {
            if let Some(batch) = self.batches.iter_mut().find(|b| b.open.id == *id) {
                // Two transactions may tell in the wrong order.
                let ended = batch.open.expected.saturating_sub(*remaining);
                batch.open.ended = batch.open.ended.max(ended);
                any = true;
            }
        }
        any
    }

    /// The durable may be gone: it is ensured again before anything is published.
    pub(crate) fn forget_durable(&mut self) {
        self.ensured = false;
        self.generation += 1;
    }

    pub(crate) fn waits(&self) -> bool {
        !self.steps.is_empty() || !self.batches.is_empty()
    }

    /// Steps of this lane have ended.
    pub(crate) fn finished(&mut self, finished: Finished, now: Instant) {
        self.outstanding = self.outstanding.saturating_sub(finished.steps);
        self.rate.add(finished.steps, now);
        self.has_moved = true;
        self.bundling.note(finished, now);
    }

    /// What the bus says is outstanding. Once acknowledgements were lost with the server, their messages fill
    /// its count until their time is over: then what it has delivered does not count, and the window is only
    /// of what waits; the workers limit the rest.
    pub(crate) fn observe(
        &mut self,
        load: Option<ConsumerLoad>,
        acks_were_lost: bool,
        now: Instant,
    ) {
        match load {
            Some(load) => {
                let delivered = if acks_were_lost { 0 } else { load.ack_pending };
                // Of what a delivered message has brought one step may be left that takes long: to count more
                // would leave workers idle, to count too little is a window too much.
                let delivered = u32::try_from(delivered).unwrap_or(u32::MAX);
                self.outstanding = self.steps_each.steps(load.pending).saturating_add(delivered);
            }
            // No durable: whatever was on it is gone, and the reconciler sends it again.
            None => {
                self.outstanding = 0;
                self.forget_durable();
            }
        }
        self.looked_at = Some(now);
        self.has_moved = false;
    }

    /// Whether to look soon: its window is nearly full as far as is known, and it has moved since that was
    /// seen.
    pub(crate) fn is_to_look_soon(&mut self, limits: WindowLimits) -> bool {
        self.waits()
            && self.has_moved
            && self.is_nearly_full(limits)
            && !std::mem::replace(&mut self.looks_soon, true)
    }

    fn is_nearly_full(&self, limits: WindowLimits) -> bool {
        self.outstanding > self.window(limits) / 2
    }

    /// Whether the occupancy must be read from the bus before more is published: it is remembered
    /// only while there is plenty of room.
    pub(crate) fn must_look(&self, limits: WindowLimits, now: Instant) -> bool {
        self.is_nearly_full(limits) && self.looked_at.is_none_or(|at| now - at > FRESH)
    }

    pub(crate) fn window(&self, limits: WindowLimits) -> u32 {
        window_size(self.slots, self.rate.per_second(), limits)
    }

    /// Takes what fits into the window: single steps first, in order, then members of batches, each of
    /// which has its turn.
    pub(crate) fn take(&mut self, limits: WindowLimits, quantum: u32, bundle_max: u32) -> Work {
        let bundle = match self.max_running {
            None => self.bundling.size(bundle_max, Instant::now()),
            Some(_) => 1,
        };
        let window = self.window(limits);
        let mut room = window.saturating_sub(self.outstanding).min(MAX_WORK);
        // Many small publishes cost more than a few larger ones.
        let waiting = self.steps.len() as u64
            + self.batches.iter().map(|b| u64::from(b.publishable())).sum::<u64>();
        if room < window / 8 && waiting > u64::from(room) {
            return Work::default();
        }
        let singles = self.steps.len().min(room as usize);
        let mut steps: Vec<Prepared> = self.steps.drain(..singles).collect();
        for prepared in &mut steps {
            self.queued.remove(&prepared.step.id);
            // In a limited queue waiting is the rule, and other nodes' sweeps have seen it wait.
            let waited = prepared.step.known_since.elapsed() >= UNSENT_AFTER;
            prepared.swept |= waited && self.max_running.is_some();
        }
        self.under_way = steps.iter().map(Prepared::dispatch).collect();
        room -= singles as u32;
        let sources: Vec<Source> = self.batches.iter().map(LaneBatch::source).collect();
        let mut spans = Vec::new();
        for (batch, share) in self.batches.iter_mut().zip(share_out(room, quantum, &sources)) {
            batch.credit = share.credit;
            if share.members > 0 {
                spans.push(batch.span(share.members, bundle));
            }
        }
        Work { steps, spans, ensured: self.ensured, generation: self.generation }
    }

    /// Takes note of what was published.
    pub(crate) fn settle(&mut self, published: &Published) {
        if published.generation == self.generation {
            self.ensured = published.ensured;
        }
        self.under_way.clear();
        for batch in &mut self.batches {
            batch.open.written.take_if(|written| written.known_since.elapsed() >= WRITTEN_FOR);
        }
        let mut sent = published.steps.len() as u32;
        for (id, members, shared) in &published.spans {
            sent += members;
            if let Some(batch) = self.batches.iter_mut().find(|b| b.open.id == *id) {
                batch.open.published_upto += members;
                batch.shared = shared.clone();
            }
        }
        self.batches.retain(|b| {
            b.open.published_upto < b.open.expected && !published.dropped.contains(&b.open.id)
        });
        self.outstanding = self.outstanding.saturating_add(sent);
        self.steps_each.note(published);
        if sent > 0 {
            (self.served, self.starved) = (true, false);
        }
    }
}

/// How many steps a message brings: of the last ones that were published, each publish counting half as much
/// as the one after it.
struct StepsEach {
    steps: f64,
    messages: f64,
}

impl Default for StepsEach {
    fn default() -> Self {
        Self { steps: 1.0, messages: 1.0 }
    }
}

impl StepsEach {
    fn note(&mut self, published: &Published) {
        let singles = published.steps.len() as f64;
        let (members, bundles) = published.sent;
        if singles + f64::from(bundles) > 0.0 {
            self.steps = self.steps / 2.0 + singles + f64::from(members);
            self.messages = self.messages / 2.0 + singles + f64::from(bundles);
        }
    }

    /// What so many messages bring. The cast saturates.
    fn steps(&self, messages: u64) -> u32 {
        (messages as f64 * self.steps / self.messages).ceil() as u32
    }
}

/// Ended steps per second, over the last second or so.
struct Rate {
    since: Instant,
    counted: u32,
    per_second: f64,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { since: now, counted: 0, per_second: 0.0 }
    }

    fn add(&mut self, steps: u32, now: Instant) {
        self.counted += steps;
        let span = (now - self.since).as_secs_f64();
        if span >= 0.1 {
            let current = f64::from(self.counted) / span;
            // Rises at once, falls slowly: a pause between two sets is not the end of the load.
            self.per_second = if current > self.per_second {
                current
            } else {
                0.8 * self.per_second + 0.2 * current
            };
            self.counted = 0;
            self.since = now;
        }
    }

    fn per_second(&self) -> f64 {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use tasker_messages::{StepId, TaskId};
    use uuid::Uuid;

    use super::*;

    fn lane(waiting: u32) -> Lane {
        let mut lane = Lane::new();
        for _ in 0..waiting {
            let step = ReadyStep {
                id: StepId::from_uuid(Uuid::now_v7()),
                task_id: TaskId::from_uuid(Uuid::now_v7()),
                namespace: Namespace::new("n").expect("a name"),
                queue: Queue::default(),
                priority: 0,
                name: "s".into(),
                template_step: "s".into(),
                attempt: 1,
                dispatch_seq: 1,
                tries: 0,
                claim_required: false,
                cursor: None,
                known_since: Instant::now(),
            };
            lane.add_step(Prepared { step, shared: None, swept: false });
        }
        lane.slots = 100;
        lane
    }

    /// Publishes what fits, as one that has this limit.
    fn publish(lane: &mut Lane, max_running: Option<u32>) -> usize {
        let bounds = WindowLimits { min: 256, max: 4_096 };
        lane.max_running = max_running;
        let work = lane.take(lane.bounds(bounds), 512, 16);
        let steps = work.steps.iter().map(|p| (p.step.id, p.step.dispatch_seq)).collect();
        lane.settle(&Published { steps, ..work.unpublished() });
        work.steps.len()
    }

    #[test]
    fn what_is_being_published_is_known_until_that_has_ended() {
        let mut lane = lane(3);
        let bounds = WindowLimits { min: 256, max: 4_096 };
        let work = lane.take(bounds, 512, 16);
        let taken: Vec<Dispatch> = work.steps.iter().map(Prepared::dispatch).collect();
        assert_eq!((lane.under_way.clone(), taken.len()), (taken, 3));
        // Also if the bus took none of it, or nobody knows.
        lane.settle(&Published::default());
        assert!(lane.under_way.is_empty());
    }

    #[test]
    fn a_limited_lane_has_twice_its_limit_out() {
        let mut lane = lane(100);
        assert_eq!(publish(&mut lane, Some(3)), 6);
        assert_eq!(publish(&mut lane, Some(3)), 0);
        lane.finished(steps(2), Instant::now());
        assert_eq!(publish(&mut lane, Some(3)), 2);
        // A lower limit is kept to by and by, a higher one at once.
        lane.finished(steps(3), Instant::now());
        assert_eq!(publish(&mut lane, Some(1)), 0);
        assert_eq!(publish(&mut lane, Some(4)), 5);
        assert_eq!(publish(&mut lane, None), 87);
    }

    fn steps(steps: u32) -> Finished {
        Finished { steps, ..Finished::default() }
    }

    fn load(pending: u64, ack_pending: u64) -> ConsumerLoad {
        ConsumerLoad {
            created_unix_nanos: 0,
            age: Duration::ZERO,
            pending,
            ack_pending,
            ack_floor_stream_seq: 0,
            delivered_stream_seq: 0,
            max_ack_pending: 8_192,
            paused_for: None,
        }
    }

    #[test]
    fn lost_acknowledgements_do_not_fill_the_window() {
        // (acknowledgements were lost, how much is published)
        for (acks_were_lost, expect) in [(false, 0), (true, 300)] {
            let mut lane = lane(300);
            lane.observe(Some(load(10, 400)), acks_were_lost, Instant::now());
            assert_eq!(publish(&mut lane, None), expect);
        }
    }

    #[test]
    fn what_waits_in_bundles_fills_the_window_and_what_was_delivered_does_not() {
        let bounds = WindowLimits { min: 256, max: 4_096 };
        let mut lane = lane(300);
        lane.slots = 0;
        lane.settle(&Published { sent: (1_600, 100), ..Published::default() });
        // Ten messages that wait, and 64 that were delivered, of each of which one slow member may be left.
        lane.observe(Some(load(10, 64)), false, Instant::now());
        assert_eq!(lane.outstanding, 10 * 16 + 64);
        assert_eq!(publish(&mut lane, None) as u32, bounds.min - (10 * 16 + 64));
        lane.observe(Some(load(0, 64)), false, Instant::now());
        assert_eq!(lane.outstanding, 64);
    }

    #[test]
    fn a_full_lane_looks_soon_when_it_has_moved_and_once() {
        let bounds = WindowLimits { min: 256, max: 4_096 };
        let mut lane = lane(300);
        lane.slots = 0;
        lane.observe(Some(load(256, 0)), false, Instant::now());
        assert!(!lane.is_to_look_soon(bounds), "it has not moved");
        lane.finished(steps(1), Instant::now());
        assert!(lane.is_to_look_soon(bounds) && !lane.is_to_look_soon(bounds));
        lane.looks_soon = false;
        lane.observe(Some(load(255, 0)), false, Instant::now());
        assert!(!lane.is_to_look_soon(bounds), "it was looked at");
        // What stands in the way here is no full window, and a look would not say more.
        lane.observe(Some(load(9, 0)), false, Instant::now());
        lane.finished(steps(1), Instant::now());
        assert!(!lane.is_to_look_soon(bounds));
    }

    #[test]
    fn a_lane_that_is_starved_goes_beyond_those_who_fill_the_window() {
        let mut lane = lane(100);
        lane.observe(Some(load(3, 3)), false, Instant::now());
        assert_eq!(publish(&mut lane, Some(3)), 0);
        lane.note_sweep();
        assert_eq!(publish(&mut lane, Some(3)), 6, "up to twice the window");
        // Whoever was served waits like the others; nobody goes further than that.
        lane.note_sweep();
        assert_eq!(publish(&mut lane, Some(3)), 0);
        lane.note_sweep();
        assert_eq!(publish(&mut lane, Some(3)), 0);
        assert_eq!(publish(&mut lane, None), 94);
    }

    #[test]
    fn what_another_publisher_may_have_sent_must_be_claimed() {
        let batch = |taken_over, from_another| OpenBatch {
            id: BatchId::from_uuid(Uuid::nil()),
            task_id: TaskId::from_uuid(Uuid::nil()),
            namespace: Namespace::new("n").expect("a name"),
            queue: Queue::default(),
            priority: 0,
            worker_template: "w".into(),
            expected: 100,
            published_upto: 7,
            ended: 0,
            parallelism: None,
            taken_over,
            from_another,
            written: None,
        };
        // (what the lane is told of one batch, up to which of its members must claim)
        let table: [(&[(bool, bool)], u32); 5] = [
            (&[(false, false)], 0),
            (&[(true, false)], 7 + MAX_WORK),
            (&[(true, true)], 7 + MAX_WORK),
            // Its own lease, seen by a sweep.
            (&[(false, false), (true, false)], 0),
            (&[(false, false), (true, true), (true, false)], 7 + MAX_WORK),
        ];
        for (told, claim_below) in table {
            let mut lane = lane(0);
            for (taken_over, from_another) in told {
                lane.add_batch(batch(*taken_over, *from_another));
            }
            let work = lane.take(WindowLimits { min: 256, max: 4_096 }, 512, 16);
            let spans: Vec<_> = work.spans.iter().map(|s| (s.from, s.claim_below)).collect();
            assert_eq!(spans, [(7, claim_below)], "{told:?}");
        }
    }

    #[test]
    fn what_another_node_may_have_sent_is_not_piled_up_and_must_claim() {
        let mut lane = lane(9);
        let mut waited: Vec<Prepared> = lane.steps.drain(..).collect();
        lane.queued.clear();
        waited[0].step.known_since -= UNSENT_AFTER;
        lane.max_running = Some(3);
        let ids: Vec<StepId> = waited.iter().map(|p| p.step.id).collect();
        for mut prepared in waited {
            prepared.swept = prepared.step.id > ids[4];
            lane.add_step(prepared);
        }
        assert_eq!(lane.steps.len(), 6, "five of its own, and one that a sweep found");
        let bounds = WindowLimits { min: 256, max: 4_096 };
        let work = lane.take(lane.bounds(bounds), 512, 16);
        let swept: Vec<bool> = work.steps.iter().map(|p| p.swept).collect();
        assert_eq!(swept, [true, false, false, false, false, true]);
    }
}
