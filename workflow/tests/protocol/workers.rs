//! What an action does: the part of workers. Mirrors `worker/held.rs`, `pull_loop.rs`, `claims.rs`,
//! `report.rs` and `drain.rs`.

use tasker_messages::{StepKind, StepState, Verdict};
use tasker_workflow::{AfterReport, Dispatched, Meeting, after_report, meet};

use crate::action::Action;
use crate::bus::{Key, Message};
use crate::mutant::Mutant;
use crate::rows::GONE;
use crate::scenario::{Ending, Fault, Scenario};
use crate::watch::Watch;
use crate::world::{Answer, Hold, Late, Next, Phase, State, Worker};

/// That one of the steps of a delivery has been run, beside those that are left of it.
const RUNS: u8 = 1 << 7;

fn dispatched(attempt: u8, seq: u8) -> Dispatched {
    Dispatched { attempt: attempt.into(), dispatch_seq: seq.into() }
}

impl State {
    pub(crate) fn apply_worker(&mut self, scenario: &Scenario, action: Action, watch: &mut Watch) {
        match action {
            Action::Deliver { worker, key } => self.deliver(scenario, worker, key, watch),
            Action::Start { worker, hold } => self.start(scenario, worker, hold, watch),
            Action::Finish { worker, hold, ending } => {
                self.finish(scenario, worker, hold, ending, watch);
            }
            Action::Abandon { worker, hold } => {
                self.abandon(worker, hold, watch);
                self.end_drained(scenario, worker);
            }
            Action::GiveBack { worker, hold } => {
                let hold = self.hold(worker, hold);
                hold.asked_seq = hold.seq;
                (hold.phase, hold.answer) = (Phase::Releasing { unstarted: true }, Answer::None);
                watch.reach("surplus given back");
            }
            Action::Answered { worker, hold, ack_lost } => {
                self.answered(scenario, worker, hold, ack_lost, watch);
            }
            Action::Beat { worker } => {
                for hold in self.workers[usize::from(worker)].holds.clone() {
                    let claims = matches!(hold.phase, Phase::Claiming { .. });
                    if !claims && !hold.is_releasing() {
                        self.rows.renew_lease(hold.slot.into(), hold.attempt, worker, watch);
                    }
                }
            }
            Action::CrashWorker { worker, asked } => self.crash(scenario, worker, asked, watch),
            Action::Drain { worker } => {
                let w = &mut self.workers[usize::from(worker)];
                w.drains = true;
                for hold in &mut w.holds {
                    let unstarted = hold.phase == Phase::Waiting;
                    if !matches!(hold.phase, Phase::Reporting(_)) {
                        hold.asked_seq = hold.seq;
                        (hold.phase, hold.answer) = (Phase::Releasing { unstarted }, Answer::None);
                    }
                }
                watch.reach("worker drained");
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn deliver(&mut self, scenario: &Scenario, worker: u8, key: Key, watch: &mut Watch) {
        let Some(place) = self.bus.find(key) else { return };
        let message = &mut self.bus.messages[place];
        let redelivered = message.delivered > 0;
        message.delivered = (message.delivered + 1).min(2);
        let old = std::mem::take(&mut message.old);
        message.out = true;
        let message = *message;
        let w = &mut self.workers[usize::from(worker)];
        let again = redelivered && !scenario.is(Mutant::NoClaimOnRedelivery);
        let old = w.doubts && old && !scenario.is(Mutant::NoClaimAfterRestart);
        let must_claim = again || message.claim_required || old;
        if message.with > 0 {
            w.parts.retain(|(of, _)| *of != key);
            w.parts.push((key, (1 << (message.with + 1)) - 1));
            w.parts.sort_unstable();
            watch.reach("delivery: of a bundle");
        }
        let claims = must_claim.then_some(redelivered);
        for slot in message.slots() {
            self.deliver_step(scenario, worker, Message { slot, ..message }, (key, claims), watch);
        }
    }

    /// What becomes of one step that a message brings.
    fn deliver_step(
        &mut self,
        scenario: &Scenario,
        worker: u8,
        message: Message,
        (key, claims): (Key, Option<bool>),
        watch: &mut Watch,
    ) {
        let slot = message.slot;
        let w = &mut self.workers[usize::from(worker)];
        if let Some(of) = w.given_back(slot, message.seq)
            && !scenario.is(Mutant::ClaimedWhileGivenBack)
        {
            watch.reach("delivery: of a step that is given back");
            let needless = match of.asked_seq > message.seq {
                true => Some(key),
                // Its time runs out once more.
                false if scenario.is(Mutant::LeftWhileGivenBack) => None,
                false => of.ack.replace(key).filter(|kept| *kept != key),
            };
            return self.acknowledge_some(scenario, (worker, slot), needless, watch);
        }
        let held = w.place_of(slot);
        let known = held.map(|place| dispatched(w.holds[place].attempt, w.holds[place].seq));
        let phase = match claims {
            Some(redelivered) => Phase::Claiming { redelivered },
            None => Phase::Waiting,
        };
        let fresh = Hold::new(message.slot, message.attempt, message.seq, Some(key), phase);
        match (meet(known, dispatched(message.attempt, message.seq)), held) {
            (Meeting::Older, _) => {
                watch.reach("delivery: older than the held one");
                return self.acknowledge_some(scenario, (worker, slot), Some(key), watch);
            }
            (Meeting::Same, Some(place)) => {
                watch.reach("delivery: of a held step");
                let hold = &mut w.holds[place];
                let replaced = hold.seq != message.seq;
                hold.seq = message.seq;
                let previous = hold.ack.replace(key);
                let is_copy = previous.is_some_and(|old| old != key) && !replaced;
                if is_copy {
                    watch.reach("delivery: of a copy");
                }
                let copies = is_copy && !scenario.is(Mutant::CopyCharged);
                let needless = previous.filter(|_| replaced || copies);
                return self.acknowledge_some(scenario, (worker, slot), needless, watch);
            }
            (Meeting::Later, Some(place)) => {
                watch.reach("delivery: of a later attempt than the held one");
                let overtaken = self.request(worker, place as u8);
                self.late.extend(overtaken.filter(|late| matches!(late, Late::Report(_))));
                *self.hold(worker, place as u8) = fresh;
            }
            _ => {
                w.holds.push(fresh);
                w.holds.sort_unstable_by_key(|hold| hold.slot);
            }
        }
        if claims.is_none() && !scenario.waits_for_slot {
            self.start_slot(scenario, worker, slot, watch);
        }
    }

    fn start_slot(&mut self, scenario: &Scenario, worker: u8, slot: u8, watch: &mut Watch) {
        if let Some(place) = self.workers[usize::from(worker)].place_of(slot) {
            self.start(scenario, worker, place as u8, watch);
        }
    }

    /// The handler is called.
    fn start(&mut self, scenario: &Scenario, worker: u8, place: u8, watch: &mut Watch) {
        let hold = self.hold(worker, place);
        (hold.phase, hold.asked_seq) = (Phase::Running, hold.seq);
        let (slot, attempt) = (usize::from(hold.slot), hold.attempt);
        let Some(step) = self.rows.steps[slot].as_mut() else {
            return watch.broken("a step runs that does not exist");
        };
        let bit = 1 << attempt.min(63);
        let before = step.ran & bit != 0 && attempt < 63;
        step.ran |= bit;
        watch.require(!before, "one attempt runs twice");
        let waits = step.state == StepState::Pending && step.outcome.is_none();
        watch.require(!waits, "a step runs before its parents have ended");
        if let Some(batch) = scenario.batch_of(slot) {
            let sealed = self.rows.batches[batch].as_ref().is_some_and(|b| b.sealed);
            watch.require(sealed, "a member runs before its batch is sealed");
        }
        if scenario.instant && self.ends_one_way(scenario, slot) {
            self.finish(scenario, worker, place, Ending::Done(0), watch);
        }
    }

    fn ends_one_way(&self, scenario: &Scenario, slot: usize) -> bool {
        let ways = [Fault::Retryable, Fault::Permanent, Fault::Unserved];
        scenario.kind(slot) != StepKind::Decision
            && !ways.iter().any(|&way| self.budget.allows(way))
    }

    fn finish(
        &mut self,
        scenario: &Scenario,
        worker: u8,
        place: u8,
        ending: Ending,
        watch: &mut Watch,
    ) {
        let hold = self.hold(worker, place);
        (hold.phase, hold.asked_seq) = (Phase::Reporting(ending), hold.seq);
        if scenario.is(Mutant::AckBeforeCommit) {
            let ack = hold.ack.take();
            let slot = hold.slot;
            self.acknowledge_some(scenario, (worker, slot), ack, watch);
        }
    }

    /// The hold is dropped without a verdict: its message comes back, and is charged.
    fn abandon(&mut self, worker: u8, place: u8, watch: &mut Watch) {
        let w = &mut self.workers[usize::from(worker)];
        let hold = w.holds.remove(place.into());
        w.begun.retain(|(slot, _)| *slot != hold.slot);
        w.begun.push((hold.slot, hold.attempt));
        w.begun.sort_unstable();
        self.rows.at(hold.slot.into()).excuse();
        let message = hold.ack.and_then(|key| self.bus.find(key));
        if let Some(message) = message.map(|place| self.bus.messages[place]) {
            // All of it comes back. A member that another message brought here meanwhile is claimed by
            // whoever gets it, unless this worker has named it by then, which it has: that takes longer.
            self.excuse_all(&message);
        }
        watch.reach("run without an outcome");
    }

    fn answered(
        &mut self,
        scenario: &Scenario,
        worker: u8,
        place: u8,
        ack_lost: bool,
        watch: &mut Watch,
    ) {
        let hold = *self.hold(worker, place);
        if let Answer::Run { attempt } = hold.answer {
            self.workers[usize::from(worker)].begun.retain(|(slot, _)| *slot != hold.slot);
            let again = matches!(hold.phase, Phase::Claiming { redelivered: true });
            let aside = again && !self.runs_first(worker, hold.ack);
            let phase = match aside {
                true => Phase::Releasing { unstarted: true },
                false => Phase::Waiting,
            };
            *self.hold(worker, place) = Hold::new(hold.slot, attempt, hold.seq, hold.ack, phase);
            if aside {
                return watch.reach("bundle that came again: given back");
            }
            if !scenario.waits_for_slot {
                self.start(scenario, worker, place, watch);
            }
            return;
        }
        let of_another = hold.seq != hold.asked_seq && !scenario.is(Mutant::VerdictOnLater);
        if of_another && matches!(hold.answer, Answer::Held | Answer::Drop) {
            // The verdict is on a message that is gone; the one that came after it is claimed.
            watch.reach("claim: of the message that came after it");
            *self.hold(worker, place) = Hold {
                asked_seq: hold.seq,
                phase: Phase::Claiming { redelivered: false },
                answer: Answer::None,
                ..hold
            };
            return;
        }
        self.workers[usize::from(worker)].holds.remove(place.into());
        let (acknowledges, next) = match hold.answer {
            Answer::Held => (scenario.is(Mutant::AckHeld), None),
            Answer::Verdict { verdict, next } => (self.ends(scenario, &hold, verdict), next),
            Answer::Released { taken_back } => {
                (taken_back || scenario.is(Mutant::AckDrained), None)
            }
            _ => (true, None),
        };
        if let Some(key) = hold.ack.filter(|_| acknowledges) {
            self.acknowledge(scenario, (worker, hold.slot), (key, ack_lost), watch);
        }
        if let Some(next) = next {
            self.go_on(scenario, worker, next, watch);
        }
        self.end_drained(scenario, worker);
    }

    /// A worker that was told to end does so when it holds nothing any more.
    fn end_drained(&mut self, scenario: &Scenario, worker: u8) {
        let w = &self.workers[usize::from(worker)];
        if w.drains && w.holds.is_empty() {
            self.replace_worker(scenario, worker);
        }
    }

    /// Whether the message that is held after a report is acknowledged (`settle` in `worker/report.rs`).
    /// Where it is not, it comes again, sooner or later.
    fn ends(&self, scenario: &Scenario, hold: &Hold, verdict: Verdict) -> bool {
        let held = match scenario.is(Mutant::LaterAcknowledged) {
            true => hold.asked_seq,
            false => hold.seq,
        };
        let after = after_report(verdict, hold.asked_seq.into(), held.into());
        after == AfterReport::Acknowledge || scenario.is(Mutant::AckStale)
    }

    /// `go_on` in `worker/report.rs`: a handed step is run if there is a slot, or given back.
    fn go_on(&mut self, scenario: &Scenario, worker: u8, next: Next, watch: &mut Watch) {
        let Next { slot, attempt, seq } = next;
        let w = &mut self.workers[usize::from(worker)];
        let free = w.busy(scenario) < scenario.slots && !w.drains;
        if w.place_of(slot).is_some() {
            watch.reach("handed step: held already");
            return;
        }
        let phase = if free { Phase::Waiting } else { Phase::Releasing { unstarted: true } };
        w.holds.push(Hold::new(slot, attempt, seq, None, phase));
        w.holds.sort_unstable_by_key(|hold| hold.slot);
        if !free {
            watch.reach("handed step: given back");
        } else if !scenario.waits_for_slot {
            self.start_slot(scenario, worker, slot, watch);
        }
    }

    /// Whether no other step of this delivery has been run.
    fn runs_first(&mut self, worker: u8, key: Option<Key>) -> bool {
        let parts = &mut self.workers[usize::from(worker)].parts;
        let parts = parts.iter_mut().find(|(of, _)| Some(*of) == key);
        parts.is_none_or(|(_, left)| std::mem::replace(left, *left | RUNS) & RUNS == 0)
    }

    fn acknowledge_some(
        &mut self,
        scenario: &Scenario,
        of: (u8, u8),
        key: Option<Key>,
        watch: &mut Watch,
    ) {
        key.into_iter().for_each(|key| self.acknowledge(scenario, of, (key, false), watch));
    }

    /// A worker is done with a step of a message. The message is acknowledged when it is with all of them.
    /// That is wrong unless each has ended, a later message of it is on the way or will be, or there is
    /// another copy.
    fn acknowledge(
        &mut self,
        scenario: &Scenario,
        (worker, slot): (u8, u8),
        (key, lost): (Key, bool),
        watch: &mut Watch,
    ) {
        let parts = &mut self.workers[usize::from(worker)].parts;
        let mut left = 0;
        if let Some(place) = parts.iter().position(|(of, _)| *of == key) {
            parts[place].1 &= !(1 << (slot - key.slot));
            left = parts[place].1 & !RUNS;
            if left == 0 || scenario.is(Mutant::BundleAcknowledged) {
                parts.remove(place);
            }
        }
        self.require_needless(key, slot, watch);
        if left != 0 && !scenario.is(Mutant::BundleAcknowledged) {
            return;
        }
        for other in (key.slot..).take(8).filter(|other| left & 1 << (other - key.slot) != 0) {
            self.require_needless(key, other, watch);
        }
        if lost {
            watch.reach("acknowledgement lost");
        } else {
            self.bus.acknowledge(key);
        }
    }

    fn require_needless(&self, key: Key, slot: u8, watch: &mut Watch) {
        let finished = self.rows.is_finished();
        let done = self
            .rows
            .step(slot.into())
            .is_none_or(|step| step.outcome.is_some() || step.dispatch_seq > key.seq || finished);
        let is_copy = |m: &Message| m.brings(slot) && m.seq == key.seq && m.key() != key;
        let copied = self.bus.messages.iter().any(is_copy);
        watch.require(done || copied, "a message is acknowledged that is still needed");
    }

    /// It is gone with all it held; another one with another id takes its place.
    fn crash(&mut self, scenario: &Scenario, worker: u8, asked: bool, watch: &mut Watch) {
        if asked {
            for place in 0..self.workers[usize::from(worker)].holds.len() as u8 {
                if self.hold(worker, place).asks() {
                    let late = self.request(worker, place);
                    self.late.extend(late);
                }
            }
        }
        for hold in std::mem::take(&mut self.workers[usize::from(worker)].holds) {
            if let Some(step) = self.rows.steps[usize::from(hold.slot)].as_mut() {
                step.excuse();
            }
        }
        self.replace_worker(scenario, worker);
        watch.reach("worker died");
    }

    /// Another process takes its place, under another id. It claims all that is on the stream.
    fn replace_worker(&mut self, scenario: &Scenario, worker: u8) {
        let doubts = !scenario.is(Mutant::NewWorkerTrusts);
        self.workers[usize::from(worker)] = Worker { doubts, ..Worker::default() };
        if doubts {
            self.bus.messages.iter_mut().for_each(|message| message.old |= message.delivered == 0);
        }
        self.orphan_leases(worker, GONE);
        for late in &mut self.late {
            let whose = match late {
                Late::Claim(asked) => &mut asked.worker,
                Late::Report(report) => &mut report.worker,
                Late::Release(released) => &mut released.worker,
            };
            if *whose == worker {
                *whose = GONE;
            }
        }
    }
}
