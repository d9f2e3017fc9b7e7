//! What an action does: the part of orchestrators, of sweeps and of the bus.

use crate::action::Action;
use crate::bus::{Key, Message};
use crate::mutant::Mutant;
use crate::rows::{GONE, Lease};
use crate::scenario::{Fault, Scenario};
use crate::watch::Watch;
use crate::world::{Answer, Late, Node, State};

impl State {
    /// Does it.
    pub(crate) fn apply(
        &mut self,
        scenario: &Scenario,
        action: Action,
        fault: Option<Fault>,
        watch: &mut Watch,
    ) {
        if let Some(fault) = fault {
            self.budget.spend(fault);
        }
        match action {
            Action::Publish { node, sending } => self.publish(scenario, node, sending, watch),
            Action::Mark { node } => self.mark(node),
            Action::Sweep { node, slot } => {
                watch.reach("swept");
                let must_claim = !scenario.is(Mutant::SweepWithoutClaim);
                self.remember(scenario, node, vec![slot.into()], must_claim);
            }
            Action::RecordEnded { slot } => {
                let step = self.rows.at(slot.into());
                step.sent_seq = step.dispatch_seq;
            }
            Action::ClaimBatch { node, batch } => self.claim_batch(scenario, node, batch, watch),
            Action::ReadMembers { node } => self.read_again(scenario, node),
            Action::PublishMember { node, sending } => {
                self.publish_member(scenario, node, sending, watch);
            }
            Action::Advance { node, confirmed } => self.advance(scenario, node, confirmed, watch),
            Action::Expand { node, batch } => {
                let ready = self.rows.expand(scenario, batch.into(), watch);
                self.remember(scenario, node, ready, false);
            }
            Action::ReadForConverge { node } => {
                self.nodes[usize::from(node)].read = Some(Box::new(self.rows.clone()));
            }
            Action::Converge { node } => self.converge(scenario, node, watch),
            Action::Wake { node, slot } => {
                self.rows.wake(slot.into(), watch);
                self.remember(scenario, node, vec![slot.into()], false);
            }
            Action::Redispatch { slot } => self.rows.redispatch(scenario, slot.into(), watch),
            Action::ServeEpoch { node } => {
                self.nodes[usize::from(node)].serves_epoch = true;
                for slot in 0..scenario.rows() {
                    if self.rows.may_be_lost(scenario, slot) {
                        self.rows.redispatch(scenario, slot, watch);
                    }
                }
            }
            Action::FinishEpoch { node } => {
                self.nodes[usize::from(node)].serves_epoch = false;
                self.rows.epoch_open = false;
            }
            Action::CancelMembers => {
                if let Some(batch) = self.rows.has_members_to_cancel() {
                    self.rows.cancel_members(scenario, batch, watch);
                }
            }
            Action::Cancel => self.rows.cancel(scenario, watch),
            _ => self.apply_misfortune(scenario, action, fault, watch),
        }
    }

    /// What befalls leases, messages and orchestrators.
    fn apply_misfortune(
        &mut self,
        scenario: &Scenario,
        action: Action,
        fault: Option<Fault>,
        watch: &mut Watch,
    ) {
        match action {
            Action::LeaseEnds { slot } => {
                let step = self.rows.at(slot.into());
                step.lease = Lease::None;
                if fault.is_some() {
                    step.excuse();
                }
                // A lease lasts longer than a claim that asks for the same again is of use.
                let slot = usize::from(slot);
                self.late
                    .retain(|late| !matches!(late, Late::Claim(a) if a.slot == slot && a.again));
            }
            Action::Expire { key } => self.expire(key, watch),
            Action::Lose { key } => {
                self.bus.acknowledge(key);
                watch.reach("message lost");
            }
            Action::LoseStore => self.lose_store(watch),
            Action::Restart => {
                self.bus.restart();
                self.workers.iter_mut().for_each(|worker| worker.doubts = true);
                watch.reach("bus restarted");
            }
            Action::RenewConsumer => self.renew_consumer(scenario, watch),
            Action::CrashNode { node } => self.crash_node(node, watch),
            _ => self.apply_request(scenario, action, watch),
        }
    }

    fn converge(&mut self, scenario: &Scenario, node: u8, watch: &mut Watch) {
        let read = self.nodes[usize::from(node)].read.take();
        let read = read.map_or_else(|| self.rows.clone(), |read| *read);
        let ready = self.rows.converge(scenario, &read, watch);
        self.remember(scenario, node, ready, false);
    }

    fn expire(&mut self, key: Key, watch: &mut Watch) {
        if let Some(place) = self.bus.find(key) {
            self.bus.messages[place].out = false;
            let message = self.bus.messages[place];
            self.excuse_all(&message);
            watch.reach("time of a message ran out");
        }
    }

    /// Whatever a message brings may be charged.
    pub(crate) fn excuse_all(&mut self, message: &Message) {
        for slot in message.slots() {
            if let Some(step) = self.rows.steps[usize::from(slot)].as_mut() {
                step.excuse();
            }
        }
    }

    /// Acknowledgements of what was on the store name nothing any more.
    fn lose_store(&mut self, watch: &mut Watch) {
        self.bus.lose_store();
        for worker in &mut self.workers {
            worker.parts.clear();
            worker.holds.iter_mut().for_each(|hold| hold.ack = None);
        }
        self.rows.epoch_open = true;
        watch.reach("store lost");
    }

    /// Somebody deletes the consumer, and it is made again: all that is on the stream is delivered as if
    /// for the first time, and acknowledgements of deliveries before that do nothing. Workers notice by
    /// the time of its creation, or by numbers of deliveries that begin anew (`pull_loop.rs`).
    fn renew_consumer(&mut self, scenario: &Scenario, watch: &mut Watch) {
        self.bus.redeliver();
        for worker in &mut self.workers {
            worker.doubts |= !scenario.is(Mutant::NoLookAtConsumer);
            worker.parts.clear();
            worker.holds.iter_mut().for_each(|hold| hold.ack = None);
        }
        watch.reach("consumer made anew");
    }

    /// It forgets everything; what it was about to answer is not answered, unless it has been sent.
    fn crash_node(&mut self, node: u8, watch: &mut Watch) {
        self.nodes[usize::from(node)] = Node::default();
        for batch in self.rows.batches.iter_mut().flatten() {
            if batch.publisher == Some(node) {
                batch.publisher = Some(GONE);
            }
        }
        for hold in self.workers.iter_mut().flat_map(|worker| &mut worker.holds) {
            let its = match hold.answer {
                Answer::Begun { node: n, .. } | Answer::Poisoning { node: n, .. } => n == node,
                _ => false,
            };
            if its {
                hold.answer = Answer::None;
            }
        }
        watch.reach("orchestrator died");
    }
}
