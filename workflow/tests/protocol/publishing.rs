//! What orchestrators publish: what can happen, and what it does. Mirrors `dispatch/publish.rs`,
//! `dispatch/lane.rs` and the repetitions of `bus/src/publish.rs`.
//!
//! What goes out is what was read, however long ago: a process may be stopped in between.

use tasker_messages::{BatchState, StepState};

use crate::action::{Action, Priced};
use crate::bus::Message;
use crate::mutant::Mutant;
use crate::scenario::{Fault, Scenario};
use crate::watch::Watch;
use crate::world::{Outgoing, Span, State};

/// What becomes of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// It is stored, or known as a duplicate, and confirmed.
    Confirmed,
    /// The bus has forgotten the id of an earlier copy, as that was stored so long ago.
    TakenTwice,
    /// It is stored, or known, and the confirmation is lost: it is published once more.
    Unheard,
}

impl State {
    /// What an orchestrator may publish or record.
    pub(crate) fn publish_actions(&self, scenario: &Scenario, node: u8, list: &mut Vec<Priced>) {
        let memory = &self.nodes[usize::from(node)];
        if let Some(out) = memory.publish.first() {
            self.sendings(out, list, |sending| Action::Publish { node, sending });
        }
        if !memory.mark.is_empty() {
            list.push((Action::Mark { node }, None));
        }
        for (batch, row) in self.rows.batches.iter().enumerate() {
            let Some(row) = row else { continue };
            let members = scenario.batches[batch].members;
            let open = row.state == BatchState::Sealed
                || scenario.is(Mutant::NoSealTest) && row.expanded_upto > row.published_upto;
            if open && !row.settled && row.published_upto < members && memory.span.is_none() {
                let publishes = |n: u8| {
                    n != node && self.nodes.get(usize::from(n)).is_some_and(|n| n.span.is_some())
                };
                let hasty = row.publisher.is_some_and(publishes);
                let action = Action::ClaimBatch { node, batch: batch as u8 };
                list.push((action, hasty.then_some(Fault::Hasty)));
            }
        }
        let Some(span) = &memory.span else { return };
        let begun = span.next > span.from || span.members.iter().any(|out| out.repeated);
        let rows = |members: &[Outgoing]| -> Vec<Outgoing> {
            members.iter().map(|out| Outgoing { is_first: true, ..*out }).collect()
        };
        if !begun && rows(&self.read_members(scenario, span)) != rows(&span.members) {
            list.push((Action::ReadMembers { node }, None));
        }
        if let Some(out) = span.members.first() {
            self.sendings(out, list, |sending| Action::PublishMember { node, sending });
        }
        if span.next > span.from || span.members.is_empty() {
            list.push((Action::Advance { node, confirmed: true }, None));
            list.push((Action::Advance { node, confirmed: false }, Some(Fault::Drop)));
        }
    }

    fn sendings(&self, out: &Outgoing, list: &mut Vec<Priced>, action: impl Fn(Sending) -> Action) {
        list.push((action(Sending::Confirmed), None));
        if self.bus.knows(out.slot, out.seq) {
            list.push((action(Sending::TakenTwice), Some(Fault::Duplicate)));
        }
        if !out.repeated {
            list.push((action(Sending::Unheard), Some(Fault::Drop)));
        }
    }

    pub(crate) fn publish(
        &mut self,
        scenario: &Scenario,
        node: u8,
        sending: Sending,
        watch: &mut Watch,
    ) {
        let memory = &mut self.nodes[usize::from(node)];
        let Some(out) = memory.publish.first_mut() else { return };
        let (sent, again) = (*out, sending == Sending::Unheard);
        out.repeated |= again;
        if !again {
            memory.publish.remove(0);
            memory.mark.push((sent.slot, sent.seq));
        }
        self.put_on_bus(scenario, sent, sending, watch);
    }

    /// What a worker must claim: what its row or its publisher says, what was published before by the
    /// same call, and what the bus stored later than `fresh_until_ms`. The bus forgets ids after a time;
    /// whoever read the row before an id was stored that was forgotten since then is late.
    pub(crate) fn put_on_bus(
        &mut self,
        scenario: &Scenario,
        out: Outgoing,
        sending: Sending,
        watch: &mut Watch,
    ) {
        self.put_bundle_on_bus(scenario, (out, 0), sending, watch);
    }

    /// A member, and how many come with it.
    fn put_bundle_on_bus(
        &mut self,
        scenario: &Scenario,
        (out, with): (Outgoing, u8),
        sending: Sending,
        watch: &mut Watch,
    ) {
        let forgets = sending == Sending::TakenTwice;
        let late = forgets && out.is_first && !scenario.is(Mutant::LateUnclaimed);
        let repeated = out.repeated && !scenario.is(Mutant::RepeatedUnclaimed);
        let claim_required = out.claim_required || late || repeated;
        let Outgoing { slot, seq, attempt, .. } = out;
        let message = Message {
            slot,
            seq,
            with,
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
        if taken && late {
            watch.reach("publish: late");
        }
        watch.require(!forgets || claim_required, "a second copy need not be claimed");
    }

    pub(crate) fn mark(&mut self, node: u8) {
        for (slot, seq) in std::mem::take(&mut self.nodes[usize::from(node)].mark) {
            self.rows.mark_sent(slot.into(), seq);
        }
    }

    /// `dispatch/claim_batches.sql` where the node has not claimed the batch or not kept it, and then
    /// `dispatch/own_spans.sql` and `dispatch/load_members.sql`: whoever publishes span after span claims
    /// the batch once, and looks before each whether it is still its own.
    pub(crate) fn claim_batch(
        &mut self,
        scenario: &Scenario,
        node: u8,
        batch: u8,
        watch: &mut Watch,
    ) {
        let Some(row) = self.rows.batches[usize::from(batch)].as_mut() else { return };
        let memory = &mut self.nodes[usize::from(node)];
        let goes_on = memory.lane & 1 << batch != 0 && row.publisher == Some(node);
        let trusts = scenario.is(Mutant::SpanUnclaimed) && row.publisher == Some(node);
        let taken_over = row.publisher.is_some() && !goes_on && !trusts;
        row.publisher = Some(node);
        let (from, upto) = (row.published_upto, row.expanded_upto);
        memory.lane |= 1 << batch;
        memory.took_over |= u8::from(taken_over) << batch;
        let taken_over = memory.took_over & 1 << batch != 0;
        if taken_over {
            watch.reach("batch taken over");
        }
        let mut span = Span { batch, from, next: from, upto, taken_over, members: Vec::new() };
        span.members = self.read_members(scenario, &span);
        self.nodes[usize::from(node)].span = Some(span);
    }

    /// They are read after the look at the batch, and something may have come between: then they are
    /// read again here.
    pub(crate) fn read_again(&mut self, scenario: &Scenario, node: u8) {
        let Some(span) = &self.nodes[usize::from(node)].span else { return };
        let mut members = self.read_members(scenario, span);
        for out in &mut members {
            // `fresh_until_ms` counts from the look.
            let before = span.members.iter().find(|o| (o.slot, o.seq) == (out.slot, out.seq));
            out.is_first = before.is_none_or(|before| before.is_first);
        }
        if let Some(span) = &mut self.nodes[usize::from(node)].span {
            span.members = members;
        }
    }

    fn read_members(&self, scenario: &Scenario, span: &Span) -> Vec<Outgoing> {
        let first = scenario.batches[usize::from(span.batch)].first as u8;
        let slots = first + span.from..first + span.upto;
        slots.filter_map(|slot| self.read_member(scenario, slot, span.taken_over)).collect()
    }

    fn read_member(&self, scenario: &Scenario, slot: u8, taken_over: bool) -> Option<Outgoing> {
        let step = self.rows.step(slot.into())?;
        let (seq, attempt) = (step.dispatch_seq, step.attempt);
        // One that was given back is published by whoever served that as well.
        let again = seq > 1 && !scenario.is(Mutant::ReleasedMember);
        let row_says = (step.claim_required || again) && !scenario.is(Mutant::MemberUnclaimed);
        let is_first = !self.bus.knows(slot, seq);
        let claim_required = taken_over || row_says;
        (step.state == StepState::Enqueued).then_some(Outgoing {
            slot,
            seq,
            attempt,
            claim_required,
            is_first,
            repeated: false,
        })
    }

    pub(crate) fn publish_member(
        &mut self,
        scenario: &Scenario,
        node: u8,
        sending: Sending,
        watch: &mut Watch,
    ) {
        let Some(span) = self.nodes[usize::from(node)].span.as_mut() else { return };
        let Some(out) = span.members.first_mut() else { return };
        let (sent, again) = (*out, sending == Sending::Unheard);
        out.repeated |= again;
        let members = bundle(scenario, &span.members);
        if !again {
            let first = scenario.batches[usize::from(span.batch)].first as u8;
            span.next = sent.slot - first + members;
            span.members.drain(..usize::from(members));
        }
        if members > 1 {
            watch.reach("publish: a bundle");
        }
        self.put_bundle_on_bus(scenario, (sent, members - 1), sending, watch);
    }

    /// `dispatch/advance_published.sql`, as far as there are confirmations; where one is missing, the
    /// batch is left to a later sweep.
    pub(crate) fn advance(
        &mut self,
        scenario: &Scenario,
        node: u8,
        confirmed: bool,
        watch: &mut Watch,
    ) {
        let Some(span) = self.nodes[usize::from(node)].span.take() else { return };
        let Some(row) = self.rows.batches[usize::from(span.batch)].as_mut() else { return };
        let guard = row.publisher == Some(node)
            && row.published_upto == span.from
            && row.state == BatchState::Sealed;
        if confirmed && guard {
            row.bundled = row.bundled.max(scenario.bundles);
            // What is not enqueued any more is passed over.
            row.published_upto = if span.members.is_empty() { span.upto } else { span.next };
        }
        let unconfirmed = span.members.first().is_some_and(|out| out.repeated);
        if !confirmed || !guard || unconfirmed {
            let memory = &mut self.nodes[usize::from(node)];
            // The lane forgets the batch; whoever claims it next takes it over.
            memory.took_over &= !(1 << span.batch);
            memory.lane &= !(1 << span.batch);
            watch.reach(if confirmed && !guard {
                "advance: passed over"
            } else {
                "advance: not confirmed"
            });
        }
    }
}

/// How many of these members come in one message (`dispatch/bundles.rs`).
fn bundle(scenario: &Scenario, members: &[Outgoing]) -> u8 {
    let Some(first) = members.first() else { return 0 };
    let fresh = |out: &Outgoing| out.attempt == 1 && out.seq == 1 && !out.claim_required;
    let with = members.iter().zip(0..scenario.bundles);
    let with = with.take_while(|(out, n)| out.slot == first.slot + n && fresh(out));
    (with.count() as u8).max(1)
}
