//! The deliveries that the worker holds: waiting, running, or waiting for the answer to a report.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tasker_bus::AckHandle;
use tasker_messages::{NodeId, RunningStep, StepId, StepKind, WorkItem};
use tasker_workflow::{Dispatched, Meeting, meet};
use tokio::sync::Notify;

use super::core::Core;
use super::giving_back::GivingBack;
use super::message::Message;
use super::place::Place;

/// How far a held step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It waits for the verdict on its claim; another worker may be running it.
    Claiming,
    /// It waits for a slot.
    Waiting,
    /// It has a slot, and waits for its shared part.
    Starting,
    /// Its handler runs.
    Running,
    /// Its outcome is on the way.
    Reporting,
}

/// One held step.
pub(crate) struct HeldStep {
    /// Distinguishes holds of the same step.
    serial: u64,
    pub(crate) place: Arc<Place>,
    pub(crate) step_id: StepId,
    pub(crate) attempt: u32,
    pub(crate) dispatch_seq: u32,
    pub(crate) node: NodeId,
    /// The message that brought it; none if an orchestrator handed it over.
    pub(crate) ack: Option<Message>,
    phase: Phase,
    since: Instant,
    /// Since when it waits for a slot, if it does.
    waits_since: Instant,
    pub(crate) kind: StepKind,
    pub(crate) timeout: Option<Duration>,
}

impl HeldStep {
    /// Whether this attempt is this worker's alone and its handler was not called: what waits for the
    /// verdict on its claim may be running elsewhere.
    pub(crate) fn is_unstarted(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Starting)
    }

    /// What is to be known of it while it is given back.
    fn given_back(&mut self) -> (StepId, u32, Option<Message>) {
        (self.step_id, self.dispatch_seq, self.ack.take())
    }

    fn dispatched(&self) -> Dispatched {
        Dispatched { attempt: self.attempt, dispatch_seq: self.dispatch_seq }
    }
}

/// What became of a delivery that was admitted.
pub(crate) enum Admitted {
    /// It is to be run.
    New(Hold),
    /// It belongs to a step that is held, or is being given back. The message returned is not needed any
    /// more, if any.
    Known(Option<Message>),
}

/// Most attempts without an end that are kept in mind; beyond that all are forgotten.
const MAX_UNFINISHED: usize = 1_024;

/// All held steps of a worker.
#[derive(Default)]
pub(crate) struct HeldSteps {
    steps: Mutex<HashMap<StepId, HeldStep>>,
    /// Attempts that were begun here and forgotten without an outcome: whoever has one of these steps
    /// again must not run the same attempt again.
    begun: Mutex<HashMap<StepId, u32>>,
    /// What was taken from its holds and is being given back.
    pub(crate) giving_back: GivingBack,
    serial: AtomicU64,
    emptied: Notify,
}

impl HeldSteps {
    fn steps(&self) -> MutexGuard<'_, HashMap<StepId, HeldStep>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes a delivery in. The slot that it occupies is already booked in the ledger.
    pub(crate) fn admit(
        core: &Arc<Core>,
        place: &Arc<Place>,
        item: &WorkItem,
        ack: Option<Message>,
        must_claim: bool,
    ) -> Admitted {
        let held = &core.held;
        let mut steps = held.steps();
        let ack = match ack.map(|ack| held.giving_back.keep(item.step_id, item.dispatch_seq, ack)) {
            Some(Ok(needless)) => return Admitted::Known(needless),
            Some(Err(ack)) => Some(ack),
            None => None,
        };
        let entry = steps.entry(item.step_id);
        let known = match &entry {
            Entry::Occupied(known) => Some(known.get().dispatched()),
            Entry::Vacant(_) => None,
        };
        let come = Dispatched { attempt: item.attempt, dispatch_seq: item.dispatch_seq };
        match (meet(known, come), entry) {
            (Meeting::Older, _) => Admitted::Known(ack),
            (Meeting::Same, Entry::Occupied(mut known)) => {
                let known = known.get_mut();
                known.dispatch_seq = item.dispatch_seq;
                let Some(ack) = ack else { return Admitted::Known(None) };
                // What comes again is held on. Another message is one too many, be it that the step was
                // dispatched again, or that the bus took this dispatch twice: nobody would extend it.
                let again = known.ack.as_ref().is_some_and(|held| held.is_same(&ack));
                Admitted::Known(known.ack.replace(ack).filter(|_| !again))
            }
            (_, entry) => {
                let serial = held.next_serial();
                entry.insert_entry(HeldStep {
                    serial,
                    place: Arc::clone(place),
                    step_id: item.step_id,
                    attempt: item.attempt,
                    dispatch_seq: item.dispatch_seq,
                    node: item.node,
                    ack,
                    phase: if must_claim { Phase::Claiming } else { Phase::Waiting },
                    since: Instant::now(),
                    waits_since: Instant::now(),
                    kind: StepKind::Standard,
                    timeout: None,
                });
                let core = Arc::clone(core);
                Admitted::New(Hold { core, step_id: item.step_id, serial, seated: true })
            }
        }
    }

    /// Looks at a hold if it is still the step's current one.
    fn with<T>(&self, hold: &Hold, change: impl FnOnce(&mut HeldStep) -> T) -> Option<T> {
        let mut steps = self.steps();
        steps.get_mut(&hold.step_id).filter(|step| step.serial == hold.serial).map(change)
    }

    /// The dispatch whose message is held, where it is another one than this: while a claim was under way
    /// the step was sent again.
    pub(crate) fn other_dispatch(&self, hold: &Hold, dispatch_seq: u32) -> Option<u32> {
        self.with(hold, |step| step.dispatch_seq).filter(|held| *held != dispatch_seq)
    }

    fn unfinished(&self) -> MutexGuard<'_, HashMap<StepId, u32>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempt of a step that was begun here and will not be ended.
    pub(crate) fn begun(&self, step: StepId) -> Option<u32> {
        self.unfinished().get(&step).copied()
    }

    /// A step was forgotten. If its handler was called, its attempt is kept in mind.
    fn note_forgotten(&self, step: &HeldStep) {
        if matches!(step.phase, Phase::Running | Phase::Reporting) {
            let mut unfinished = self.unfinished();
            if unfinished.len() >= MAX_UNFINISHED {
                unfinished.clear();
            }
            unfinished.insert(step.step_id, step.attempt);
        }
    }

    /// Whether it is the first of the steps that its message brought of which that is asked.
    pub(crate) fn runs_first(&self, hold: &Hold) -> bool {
        let first = self.with(hold, |step| step.ack.as_ref().is_none_or(Message::runs_first));
        first.unwrap_or(true)
    }

    /// Takes a step from its hold, to be given back.
    pub(crate) fn take_one(&self, hold: Hold) -> Option<HeldStep> {
        let mut steps = self.steps();
        let mut taken = remove(&mut steps, hold.step_id, hold.serial);
        self.giving_back.begin(taken.iter_mut().map(HeldStep::given_back));
        drop(steps);
        taken
    }

    /// The claim was granted.
    pub(crate) fn granted(&self, hold: &Hold, attempt: u32) {
        self.unfinished().remove(&hold.step_id);
        self.with(hold, |step| {
            step.attempt = attempt;
            step.phase = Phase::Waiting;
            step.waits_since = Instant::now();
        });
    }

    /// There is a slot for it. `false` if the step has been taken from this hold.
    pub(crate) fn seated(&self, hold: &Hold) -> bool {
        self.with(hold, |step| step.phase = Phase::Starting).is_some()
    }

    /// The handler is about to run. `false` if the step has been taken from this hold.
    pub(crate) fn start(&self, hold: &Hold, kind: StepKind, timeout: Option<Duration>) -> bool {
        let started = self.with(hold, |step| {
            step.phase = Phase::Running;
            step.kind = kind;
            step.timeout = timeout;
            step.since = Instant::now();
        });
        started.is_some()
    }

    /// There is an outcome. Gives the `dispatch_seq` of the newest message, or `None` if the step
    /// has been taken from this hold, so that its outcome is of no interest.
    pub(crate) fn end(&self, hold: &Hold) -> Option<u32> {
        self.with(hold, |step| {
            step.phase = Phase::Reporting;
            step.dispatch_seq
        })
    }

    /// The message of a hold that goes on.
    pub(crate) fn ack_of(&self, hold: &Hold) -> Option<AckHandle> {
        self.with(hold, |step| step.ack.as_ref().map(Message::whole)).flatten()
    }

    /// The holds are done with. Gives what was held, in order, where they are still current.
    pub(crate) fn settle(&self, holds: Vec<Hold>) -> Vec<Option<HeldStep>> {
        let mut steps = self.steps();
        let settled = holds.iter().map(|hold| remove(&mut steps, hold.step_id, hold.serial));
        let settled = settled.collect();
        let empty = steps.is_empty();
        drop(steps);
        if empty {
            self.emptied.notify_waiters();
        }
        // Their entries are gone; dropping the holds only frees slots that are still booked.
        drop(holds);
        settled
    }

    /// One hold is done with. Gives its message, if it is still current.
    pub(crate) fn settle_one(&self, hold: Hold) -> Option<Message> {
        self.settle(vec![hold]).pop()??.ack
    }

    /// Steps that have been held for longer than `age`, for a sign of life.
    pub(crate) fn running(&self, place: &Place, age: Duration) -> Vec<RunningStep> {
        let steps = self.steps();
        let listed = steps.values().filter(|step| {
            step.place.namespace == place.namespace
                && step.phase != Phase::Claiming
                && step.since.elapsed() >= age
        });
        listed.map(|s| RunningStep { step_id: s.step_id, attempt: s.attempt }).collect()
    }

    /// How many steps of a queue are held.
    pub(crate) fn count(&self, place: &Place) -> u32 {
        let is_there = |step: &&HeldStep| {
            step.place.namespace == place.namespace && step.place.queue == place.queue
        };
        self.steps().values().filter(is_there).count() as u32
    }

    /// Messages whose time is to start anew, each once.
    pub(crate) fn to_extend(&self, age: Duration) -> Vec<AckHandle> {
        let (mut messages, mut bundles) = (Vec::new(), HashSet::new());
        let mut extend = |message: &Message| {
            if message.bundle().is_none_or(|bundle| bundles.insert(bundle)) {
                messages.push(message.whole());
            }
        };
        let steps = self.steps();
        let old = steps.values().filter(|step| step.since.elapsed() >= age);
        old.filter_map(|step| step.ack.as_ref()).for_each(&mut extend);
        drop(steps);
        self.giving_back.each_message(extend);
        messages
    }

    /// Takes over steps whose handlers run for longer than their timeout and `grace`: they block
    /// their thread, so that the timer in their own task does not fire.
    pub(crate) fn take_overdue(core: &Arc<Core>, grace: Duration) -> Vec<Overdue> {
        let held = &core.held;
        let mut steps = held.steps();
        let overdue = steps.values_mut().filter(|step| {
            let limit = step.timeout.map(|timeout| timeout + grace);
            step.phase == Phase::Running && limit.is_some_and(|limit| step.since.elapsed() > limit)
        });
        let overdue = overdue.map(|step| {
            // The slot stays booked by the task that is stuck.
            step.serial = held.next_serial();
            step.phase = Phase::Reporting;
            Overdue {
                hold: Hold {
                    core: Arc::clone(core),
                    step_id: step.step_id,
                    serial: step.serial,
                    seated: false,
                },
                place: Arc::clone(&step.place),
                attempt: step.attempt,
                dispatch_seq: step.dispatch_seq,
                node: step.node,
                kind: step.kind,
                timeout: step.timeout.unwrap_or_default(),
                ran: step.since.elapsed(),
            }
        });
        overdue.collect()
    }

    /// Takes all steps whose phase is one of these from their holds.
    pub(crate) fn take(&self, phases: &[Phase]) -> Vec<HeldStep> {
        let mut steps = self.steps();
        let taken = steps.extract_if(|_, step| phases.contains(&step.phase));
        let mut taken: Vec<HeldStep> = taken.map(|(_, step)| step).collect();
        self.giving_back.begin(taken.iter_mut().map(HeldStep::given_back));
        let empty = steps.is_empty();
        drop(steps);
        if empty {
            self.emptied.notify_waiters();
        }
        taken
    }

    /// Whether the step has not been taken from its hold.
    pub(crate) fn is_current(&self, hold: &Hold) -> bool {
        self.with(hold, |_| ()).is_some()
    }

    /// Takes steps from their holds that have waited for a slot for longer than `age`, but for as many as
    /// may wait for as long as it takes: the first ones.
    pub(crate) fn take_surplus(&self, age: Duration, may_wait: usize) -> Vec<HeldStep> {
        let mut steps = self.steps();
        let old =
            |step: &HeldStep| step.phase == Phase::Waiting && step.waits_since.elapsed() >= age;
        let mut serials: Vec<u64> = steps.values().filter(|s| old(s)).map(|s| s.serial).collect();
        if serials.len() <= may_wait {
            return Vec::new();
        }
        serials.sort_unstable();
        let first = serials[may_wait];
        let surplus = steps.extract_if(|_, step| old(step) && step.serial >= first);
        let mut surplus: Vec<HeldStep> = surplus.map(|(_, step)| step).collect();
        self.giving_back.begin(surplus.iter_mut().map(HeldStep::given_back));
        surplus
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps().is_empty()
    }

    /// Waits until nothing is held.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Before the look, so that an end between look and wait is not missed.
            emptied.as_mut().enable();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

fn remove(steps: &mut HashMap<StepId, HeldStep>, step_id: StepId, serial: u64) -> Option<HeldStep> {
    match steps.entry(step_id) {
        Entry::Occupied(step) if step.get().serial == serial => Some(step.remove()),
        _ => None,
    }
}

/// A step that was taken over because its handler does not come back.
pub(crate) struct Overdue {
    pub(crate) hold: Hold,
    pub(crate) place: Arc<Place>,
    pub(crate) attempt: u32,
    pub(crate) dispatch_seq: u32,
    pub(crate) node: NodeId,
    pub(crate) kind: StepKind,
    pub(crate) timeout: Duration,
    pub(crate) ran: Duration,
}

/// The right to run a step, and the booking of its slot. Dropped without [`HeldSteps::settle`], the
/// step is forgotten without acknowledgement, so that it comes back: whatever goes wrong between
/// delivery and verdict ends there.
pub(crate) struct Hold {
    pub(crate) core: Arc<Core>,
    pub(crate) step_id: StepId,
    serial: u64,
    /// Whether a slot is booked.
    seated: bool,
}

impl Hold {
    /// Frees the slot; the delivery is still held.
    pub(crate) fn leave_slot(&mut self) {
        if std::mem::take(&mut self.seated) {
            self.core.ledger.give(1);
        }
    }

    /// Leaves the step among the held ones, for [`HeldSteps::take`].
    pub(crate) fn leave_behind(mut self) {
        self.serial = 0;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.leave_slot();
        let mut steps = self.core.held.steps();
        let forgotten = remove(&mut steps, self.step_id, self.serial);
        let empty = forgotten.is_some() && steps.is_empty();
        drop(steps);
        if let Some(step) = forgotten {
            self.core.held.note_forgotten(&step);
        }
        if empty {
            self.core.held.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[tokio::test]
    async fn the_last_of_those_that_wait_are_surplus() {
        let core = fixture::core(|_| {}).await;
        let holds: Vec<Hold> = (1..=6).map(|step| fixture::hold(&core, step)).collect();
        let taken = |may_wait| -> Vec<StepId> {
            let mut steps = core.held.take_surplus(Duration::ZERO, may_wait);
            steps.sort_by_key(|step| step.serial);
            steps.into_iter().map(|step| step.step_id).collect()
        };
        assert!(core.held.take_surplus(Duration::from_secs(60), 0).is_empty(), "not for that long");
        // One that runs does not wait, nor does one that has its slot.
        assert!(core.held.start(&holds[4], StepKind::Standard, None));
        assert!(core.held.seated(&holds[5]));
        assert_eq!(taken(4), []);
        assert_eq!(taken(2), [holds[2].step_id, holds[3].step_id]);
        assert_eq!(taken(2), [], "once");
        let current: Vec<bool> = holds.iter().map(|hold| core.held.is_current(hold)).collect();
        assert_eq!(current, [true, true, false, false, true, true]);
        assert_eq!(taken(0), [holds[0].step_id, holds[1].step_id]);
        assert!(!core.held.seated(&holds[0]));
    }
}
