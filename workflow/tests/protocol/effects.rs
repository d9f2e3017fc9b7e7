//! What an action does: the part of orchestrators, of sweeps and of the bus.

use crate::action::Action;
use crate::bus::{Key, Message};
use crate::holes::Hole;
use crate::mutant::Mutant;
use crate::rows::{GONE, Lease};
use crate::scenario::{Fault, Scenario};
use crate::watch::Watch;
use crate::world::{Answer, Node, Outgoing, Span, State};

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
            Action::Publish { node, forgets } => self.publish(node, forgets, watch),
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
            Action::PublishMember { node, forgets } => {
                self.publish_member(scenario, node, forgets, watch);
            }
            Action::Advance { node, confirmed } => self.advance(node, confirmed, watch),
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

    /// `dispatch/publish.rs`: what was read goes out as it was read.
    fn publish(&mut self, node: u8, forgets: bool, watch: &mut Watch) {
        let memory = &mut self.nodes[usize::from(node)];
        let out = memory.publish.remove(0);
        memory.mark.push((out.slot, out.seq));
        self.put_on_bus(out, forgets, watch);
    }

    pub(crate) fn put_on_bus(&mut self, out: Outgoing, forgets: bool, watch: &mut Watch) {
        let Outgoing { slot, seq, attempt, claim_required } = out;
        let message = Message {
            slot,
            seq,
            copy: 0,
            attempt,
            claim_required,
            delivered: 0,
            out: false,
            old: false,
        };
        let taken = self.bus.publish(message, forgets);
        match (taken, forgets) {
            (false, _) => watch.reach("publish: known to the bus"),
            (true, true) => watch.reach("publish: taken twice"),
            (true, false) => {}
        }
    }

    fn mark(&mut self, node: u8) {
        for (slot, seq) in std::mem::take(&mut self.nodes[usize::from(node)].mark) {
            self.rows.mark_sent(slot.into(), seq);
        }
    }

    /// `dispatch/claim_batches.sql`.
    fn claim_batch(&mut self, scenario: &Scenario, node: u8, batch: u8, watch: &mut Watch) {
        let Some(row) = self.rows.batches[usize::from(batch)].as_mut() else { return };
        let memory = &mut self.nodes[usize::from(node)];
        // Who publishes span after span claims the batch once.
        let goes_on = memory.lane & 1 << batch != 0 && row.publisher == Some(node);
        let trusts = scenario.is(Mutant::SpanUnclaimed) && row.publisher == Some(node);
        let taken_over = row.publisher.is_some() && !goes_on && !trusts;
        row.publisher = Some(node);
        let from = row.published_upto;
        memory.lane |= 1 << batch;
        memory.took_over |= u8::from(taken_over) << batch;
        let taken_over = memory.took_over & 1 << batch != 0;
        memory.span = Some(Span { batch, from, next: from, taken_over });
        if taken_over {
            watch.reach("batch taken over");
        }
    }

    /// `dispatch/load_members.sql` and the publish of one member.
    fn publish_member(&mut self, scenario: &Scenario, node: u8, forgets: bool, watch: &mut Watch) {
        let Some(span) = self.nodes[usize::from(node)].span.as_mut() else { return };
        let slot = scenario.batches[usize::from(span.batch)].first as u8 + span.next;
        span.next += 1;
        let taken_over = span.taken_over;
        let Some(step) = self.rows.step(slot.into()) else { return };
        if step.state == tasker_messages::StepState::Enqueued {
            let (seq, attempt) = (step.dispatch_seq, step.attempt);
            let row_says = step.claim_required && !scenario.is(Mutant::MemberUnclaimed);
            let claim_required = taken_over || row_says;
            // It was given back: somebody else publishes it as well, and nobody must claim it.
            let released = seq > 1 && !taken_over && !step.claim_required;
            self.budget.doubled |= released && scenario.lets_pass(Hole::ReleasedMember);
            self.put_on_bus(Outgoing { slot, seq, attempt, claim_required }, forgets, watch);
        }
    }

    /// `dispatch/advance_published.sql`; without a confirmation the batch is left to a later sweep.
    fn advance(&mut self, node: u8, confirmed: bool, watch: &mut Watch) {
        let Some(span) = self.nodes[usize::from(node)].span.take() else { return };
        let Some(row) = self.rows.batches[usize::from(span.batch)].as_mut() else { return };
        let guard = row.publisher == Some(node)
            && row.published_upto == span.from
            && row.state == tasker_messages::BatchState::Sealed;
        if confirmed && guard {
            row.published_upto = span.next;
        } else {
            let memory = &mut self.nodes[usize::from(node)];
            // The lane forgets the batch; whoever claims it next takes it over.
            memory.took_over &= !(1 << span.batch);
            memory.lane &= !(1 << span.batch);
            watch.reach(if confirmed { "advance: passed over" } else { "advance: not confirmed" });
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
            if let Some(step) = self.rows.steps[usize::from(key.slot)].as_mut() {
                step.excuse();
            }
            watch.reach("time of a message ran out");
        }
    }

    /// Acknowledgements of what was on the store name nothing any more.
    fn lose_store(&mut self, watch: &mut Watch) {
        self.bus.lose_store();
        for hold in self.workers.iter_mut().flat_map(|worker| &mut worker.holds) {
            hold.ack = None;
        }
        self.rows.epoch_open = true;
        watch.reach("store lost");
    }

    /// Somebody deletes the consumer, and it is made again: all that is on the stream is delivered as if
    /// for the first time, and acknowledgements of deliveries before that do nothing. Workers notice by
    /// the time of its creation, or by numbers of deliveries that begin anew (`pull_loop.rs`).
    fn renew_consumer(&mut self, scenario: &Scenario, watch: &mut Watch) {
        self.bus.restart();
        for worker in &mut self.workers {
            worker.doubts |= !scenario.is(Mutant::NoLookAtConsumer);
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
