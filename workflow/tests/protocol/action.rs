//! What can happen next.

use std::fmt::Write as _;

use tasker_messages::StepState;

use crate::bus::{Key, Message};
use crate::mutant::Mutant;
use crate::publishing::Sending;
use crate::rows::{GONE, Lease};
use crate::scenario::{Ending, Fault, Scenario};
use crate::world::{Answer, Names, Phase, State};

/// How a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Committed and answered.
    Answered,
    /// Committed; the answer is lost.
    Unheard,
    /// Committed, but the orchestrator does not know.
    InDoubt,
    /// Not committed, and the orchestrator does not know.
    Undone,
}

/// One step of the world. Workers, orchestrators and held steps are named by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Publish { node: u8, sending: Sending },
    Mark { node: u8 },
    Sweep { node: u8, slot: u8 },
    RecordEnded { slot: u8 },
    ClaimBatch { node: u8, batch: u8 },
    ReadMembers { node: u8 },
    PublishMember { node: u8, sending: Sending },
    Advance { node: u8, confirmed: bool },
    Expand { node: u8, batch: u8 },
    Converge { node: u8 },
    ReadForConverge { node: u8 },
    Wake { node: u8, slot: u8 },
    Redispatch { slot: u8 },
    ServeEpoch { node: u8 },
    FinishEpoch { node: u8 },
    CancelMembers,
    Cancel,
    Begin { node: u8, worker: u8, hold: u8 },
    Serve { node: u8, worker: u8, hold: u8, way: Way },
    EndPoisoned { node: u8, worker: u8, hold: u8 },
    ServeLate { node: u8, late: u8 },
    GiveUpWaiting { worker: u8, hold: u8 },
    Answered { worker: u8, hold: u8, ack_lost: bool },
    Deliver { worker: u8, key: Key },
    Start { worker: u8, hold: u8 },
    Finish { worker: u8, hold: u8, ending: Ending },
    Abandon { worker: u8, hold: u8 },
    GiveBack { worker: u8, hold: u8 },
    Beat { worker: u8 },
    LeaseEnds { slot: u8 },
    Expire { key: Key },
    Lose { key: Key },
    LoseStore,
    Restart,
    RenewConsumer,
    CrashWorker { worker: u8, asked: bool },
    CrashNode { node: u8 },
    Drain { worker: u8 },
}

/// An action, and what of the budget it costs.
pub(crate) type Priced = (Action, Option<Fault>);

impl State {
    /// Everything that can happen now.
    pub(crate) fn actions(&self, scenario: &Scenario) -> Vec<Priced> {
        let mut list = Vec::with_capacity(32);
        self.rows_actions(scenario, &mut list);
        for node in 0..self.nodes.len() as u8 {
            // Two orchestrators that remember the same are the same.
            let twin = node > 0
                && self.nodes[usize::from(node)] == self.nodes[usize::from(node) - 1]
                && !self
                    .rows
                    .batches
                    .iter()
                    .flatten()
                    .any(|b| b.publisher.is_some_and(|p| p != GONE))
                && !self.has_begun();
            if !twin {
                self.node_actions(scenario, node, &mut list);
            }
        }
        for worker in 0..self.workers.len() as u8 {
            self.worker_actions(scenario, worker, &mut list);
        }
        self.bus_actions(scenario, &mut list);
        list.retain(|(_, fault)| fault.is_none_or(|fault| self.budget.allows(fault)));
        list
    }

    fn has_begun(&self) -> bool {
        let begun = |answer| matches!(answer, Answer::Begun { .. } | Answer::Poisoning { .. });
        self.workers.iter().flat_map(|w| &w.holds).any(|hold| begun(hold.answer))
    }

    /// Sweeps and timers that leave nothing in any memory.
    fn rows_actions(&self, scenario: &Scenario, list: &mut Vec<Priced>) {
        let rows = &self.rows;
        let reconciles = !scenario.is(Mutant::NoReconciler);
        let missing = rows.count_dispatched(scenario) - self.bus.messages.len() as i32;
        for slot in 0..scenario.rows() {
            let Some(step) = rows.step(slot) else { continue };
            let place = slot as u8;
            if rows.is_unsent(slot) && step.outcome.is_some() {
                list.push((Action::RecordEnded { slot: place }, None));
            }
            if reconciles && rows.may_be_lost(scenario, slot) {
                let brings = |m: &Message| m.brings(place) && m.seq == step.dispatch_seq;
                let on_bus = self.bus.messages.iter().any(brings);
                let wrong = on_bus || missing <= 0;
                list.push((Action::Redispatch { slot: place }, wrong.then_some(Fault::Hasty)));
            }
            if let Lease::Of(worker) = step.lease {
                let at_work = self.is_at_work(worker, place);
                list.push((Action::LeaseEnds { slot: place }, at_work.then_some(Fault::SlowLease)));
            }
        }
        if rows.has_members_to_cancel().is_some() {
            list.push((Action::CancelMembers, None));
        }
        if !rows.is_finished() {
            list.push((Action::Cancel, Some(Fault::Cancel)));
        }
    }

    fn node_actions(&self, scenario: &Scenario, node: u8, list: &mut Vec<Priced>) {
        let memory = &self.nodes[usize::from(node)];
        if *memory != Default::default() {
            list.push((Action::CrashNode { node }, Some(Fault::NodeCrash)));
        }
        for slot in 0..scenario.rows() as u8 {
            let row = usize::from(slot);
            let sweeps = !scenario.is(Mutant::NoSweep) && !memory.has(slot);
            if sweeps && self.rows.is_to_publish(scenario, row) {
                let hasty = self.nodes.iter().any(|other| other.has(slot));
                list.push((Action::Sweep { node, slot }, hasty.then_some(Fault::Hasty)));
            }
            if self.rows.step(row).is_some_and(|s| s.state == StepState::WaitingForRetry) {
                list.push((Action::Wake { node, slot }, None));
            }
        }
        if self.rows.epoch_open && !scenario.is(Mutant::NoReconciler) {
            let served = self.nodes.iter().any(|node| node.serves_epoch);
            match memory.serves_epoch {
                true => list.push((Action::FinishEpoch { node }, None)),
                false => list.push((Action::ServeEpoch { node }, served.then_some(Fault::Hasty))),
            }
        }
        self.publish_actions(scenario, node, list);
        self.batch_actions(scenario, node, list);
        self.request_actions(scenario, node, list);
    }

    fn batch_actions(&self, scenario: &Scenario, node: u8, list: &mut Vec<Priced>) {
        let memory = &self.nodes[usize::from(node)];
        for batch in 0..self.rows.batches.len() {
            if self.rows.is_to_expand(scenario, batch) {
                list.push((Action::Expand { node, batch: batch as u8 }, None));
            }
        }
        let converges =
            self.rows.is_to_converge(scenario) && !scenario.is(Mutant::CheckedBeforeCommit);
        if scenario.is(Mutant::ConvergedWithoutLock) {
            if converges && memory.read.is_none() {
                list.push((Action::ReadForConverge { node }, None));
            }
            if memory.read.is_some() {
                list.push((Action::Converge { node }, None));
            }
        } else if converges {
            list.push((Action::Converge { node }, None));
        }
    }

    fn request_actions(&self, scenario: &Scenario, node: u8, list: &mut Vec<Priced>) {
        for (worker, place) in self.places() {
            let hold = &self.workers[usize::from(worker)].holds[usize::from(place)];
            let serve = |way| Action::Serve { node, worker, hold: place, way };
            let begun = matches!(hold.answer, Answer::Begun { node: n, .. } if n == node);
            let is_report = matches!(hold.phase, Phase::Reporting(_));
            if hold.asks() && is_report && scenario.split_apply {
                list.push((Action::Begin { node, worker, hold: place }, None));
            } else if hold.asks() || begun {
                list.push((serve(Way::Answered), None));
                list.push((serve(Way::Unheard), Some(Fault::Drop)));
                list.push((serve(Way::InDoubt), Some(Fault::Ambiguous)));
                if is_report && !hold.in_doubt {
                    list.push((serve(Way::Undone), Some(Fault::Ambiguous)));
                }
            }
            if matches!(hold.answer, Answer::Poisoning { node: n, .. } if n == node) {
                list.push((Action::EndPoisoned { node, worker, hold: place }, None));
            }
        }
        for late in 0..self.late.len() as u8 {
            list.push((Action::ServeLate { node, late }, None));
        }
    }

    fn worker_actions(&self, scenario: &Scenario, worker: u8, list: &mut Vec<Priced>) {
        let w = &self.workers[usize::from(worker)];
        let mut beats = false;
        for (place, hold) in w.holds.iter().enumerate() {
            let place = place as u8;
            if hold.asks() {
                list.push((Action::GiveUpWaiting { worker, hold: place }, Some(Fault::Late)));
            }
            let begun = matches!(hold.answer, Answer::Begun { .. } | Answer::Poisoning { .. });
            if hold.answer != Answer::None && !begun {
                list.push((Action::Answered { worker, hold: place, ack_lost: false }, None));
                if hold.ack.is_some() && hold.answer != Answer::Held {
                    let action = Action::Answered { worker, hold: place, ack_lost: true };
                    list.push((action, Some(Fault::Drop)));
                }
            }
            if hold.phase == Phase::Waiting {
                list.push((Action::Start { worker, hold: place }, None));
                list.push((Action::GiveBack { worker, hold: place }, Some(Fault::Surplus)));
            }
            let begun_here = matches!(hold.phase, Phase::Running | Phase::Reporting(_));
            if begun_here && (hold.asks() || hold.phase == Phase::Running) {
                list.push((Action::Abandon { worker, hold: place }, Some(Fault::Abandoned)));
            }
            if hold.phase == Phase::Running {
                self.endings(scenario, worker, place, list);
            }
            let beating =
                matches!(hold.phase, Phase::Waiting | Phase::Running | Phase::Reporting(_));
            beats |= beating
                && self.rows.step(usize::from(hold.slot)).is_some_and(|step| {
                    let renewed =
                        step.lease == Lease::Of(worker) && step.state == StepState::InProgress;
                    step.attempt == hold.attempt
                        && step.is_live()
                        && step.outcome.is_none()
                        && !renewed
                });
        }
        if beats {
            list.push((Action::Beat { worker }, None));
        }
        if !w.holds.is_empty() {
            list.push((Action::CrashWorker { worker, asked: false }, Some(Fault::WorkerCrash)));
            if w.holds.iter().any(|hold| hold.asks()) {
                list.push((Action::CrashWorker { worker, asked: true }, Some(Fault::WorkerCrash)));
            }
            if !w.drains {
                list.push((Action::Drain { worker }, Some(Fault::Drain)));
            }
        }
    }

    fn endings(&self, scenario: &Scenario, worker: u8, hold: u8, list: &mut Vec<Priced>) {
        let finish = |ending| Action::Finish { worker, hold, ending };
        let slot = self.workers[usize::from(worker)].holds[usize::from(hold)].slot;
        let decides = scenario.kind(slot.into()) == tasker_messages::StepKind::Decision;
        let choices = if decides { scenario.choices.len() as u8 } else { 1 };
        list.extend((0..choices).map(|choice| (finish(Ending::Done(choice)), None)));
        list.push((finish(Ending::Retryable), Some(Fault::Retryable)));
        list.push((finish(Ending::Permanent), Some(Fault::Permanent)));
        list.push((finish(Ending::Unserved), Some(Fault::Unserved)));
    }

    fn bus_actions(&self, scenario: &Scenario, list: &mut Vec<Priced>) {
        for (place, message) in self.bus.messages.iter().enumerate() {
            let key = message.key();
            list.push((Action::Lose { key }, Some(Fault::Loss)));
            if !self.is_deliverable(place) {
                list.push((Action::Expire { key }, Some(Fault::Expiry)));
                continue;
            }
            for (worker, w) in self.workers.iter().enumerate() {
                let twin = worker > 0
                    && *w == Default::default()
                    && self.workers[worker - 1] == *w
                    && !self.is_named(worker as u8);
                if w.busy(scenario) < scenario.slots && !w.drains && !twin {
                    list.push((Action::Deliver { worker: worker as u8, key }, None));
                }
            }
        }
        if !self.bus.messages.is_empty() {
            list.push((Action::LoseStore, Some(Fault::StoreLoss)));
        }
        if self.bus.messages.iter().any(|message| message.delivered > 0) {
            list.push((Action::Restart, Some(Fault::Restart)));
            list.push((Action::RenewConsumer, Some(Fault::NewConsumer)));
        }
    }

    /// Whether a row or a late request names this worker or the one before.
    fn is_named(&self, worker: u8) -> bool {
        !self.late.is_empty()
            || self.rows.existing().any(
                |(_, step)| matches!(step.lease, Lease::Of(w) if w == worker || worker.checked_sub(1) == Some(w)),
            )
    }

    fn places(&self) -> impl Iterator<Item = (u8, u8)> {
        let of = |(n, worker): (usize, &crate::world::Worker)| (n as u8, worker.holds.len() as u8);
        let workers: Vec<(u8, u8)> = self.workers.iter().enumerate().map(of).collect();
        workers.into_iter().flat_map(|(worker, holds)| (0..holds).map(move |hold| (worker, hold)))
    }
}

impl Action {
    /// For people: who does what to which step.
    pub(crate) fn line(&self, scenario: &Scenario, state: &State, names: &Names) -> String {
        let mut text = format!("{self:?}");
        let named = |what: &str, place: u8, list: &[u8]| {
            let name = list.get(usize::from(place)).map_or(place, |n| *n);
            (format!("{what}: {place}"), format!("{what}: {}", name + 1))
        };
        let mut slot_of_hold = None;
        for (what, list) in [("node", &names.nodes), ("worker", &names.workers)] {
            if let Some(place) = number_behind(&text, what) {
                if what == "worker"
                    && let Some(hold) = number_behind(&text, "hold")
                {
                    let held = &self_holds(state, place)[usize::from(hold)];
                    slot_of_hold = Some((hold, *held));
                }
                let (old, new) = named(what, place, list);
                text = text.replace(&old, &new);
            }
        }
        if let Some((place, hold)) = slot_of_hold {
            let name = scenario.slot_name(hold.slot.into());
            text = text.replace(&format!("hold: {place}"), &format!("step: {name}"));
            let _ = write!(text, " attempt {} seq {}", hold.attempt, hold.seq);
        }
        if let Some(slot) = number_behind(&text, "slot") {
            text = text.replace(
                &format!("slot: {slot}"),
                &format!("step: {}", scenario.slot_name(slot.into())),
            );
        }
        text
    }
}

fn self_holds(state: &State, worker: u8) -> &[crate::world::Hold] {
    &state.workers[usize::from(worker)].holds
}

fn number_behind(text: &str, what: &str) -> Option<u8> {
    let rest = text.split_once(&format!("{what}: "))?.1;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
