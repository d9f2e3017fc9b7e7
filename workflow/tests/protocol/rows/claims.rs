//! Claims, leases, releases, and what is dispatched again: `store/src/claims.rs`, `leases.rs`,
//! `reconcile.rs` and `dispatch.rs` with their queries. All of them lock the rows by
//! `outcomes/lock_steps.sql` and test for an outcome in the statement that follows.

use tasker_messages::{Claim, StepId, StepState};
use tasker_workflow::{ClaimDecision, ClaimFacts, StepEvent, decide_claim};
use uuid::Uuid;

use super::{Batch, Rows, Step};
use crate::mutant::Mutant;
use crate::scenario::Scenario;
use crate::watch::Watch;

/// A process that is gone: whoever comes after it has another id.
pub(crate) const GONE: u8 = u8::MAX;

/// Who holds a step. One that has run out is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lease {
    None,
    Of(u8),
}

/// A claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    pub(crate) slot: usize,
    pub(crate) seq: u8,
    /// The attempt of the message, which is of no interest.
    pub(crate) attempt: u8,
    pub(crate) redelivered: bool,
    /// The attempt that the worker has begun and will not end.
    pub(crate) begun: Option<u8>,
    pub(crate) worker: u8,
    /// Whether it was granted before, and the answer was lost.
    pub(crate) again: bool,
}

/// A step that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Released {
    pub(crate) slot: usize,
    pub(crate) attempt: u8,
    pub(crate) seq: u8,
    pub(crate) unstarted: bool,
    pub(crate) worker: u8,
}

impl Rows {
    /// `Store::claim_steps`: `claims/facts.sql`, the rule, and `raise`.
    pub(crate) fn claim(
        &mut self,
        scenario: &Scenario,
        asked: Asked,
        watch: &mut Watch,
    ) -> Option<ClaimDecision> {
        let step = self.step(asked.slot)?;
        let by_attempt = scenario.is(Mutant::JudgedByAttempt);
        let facts = ClaimFacts {
            ended: step.outcome.is_some() && !scenario.is(Mutant::RaisedAfterOutcome),
            live: step.is_live() && self.is_open(scenario, asked.slot),
            held_by_other: matches!(step.lease, Lease::Of(other) if other != asked.worker),
            held_by_claimant: step.state == StepState::InProgress
                && step.lease == Lease::Of(asked.worker)
                && !scenario.is(Mutant::GrantedAnew),
            // Whoever vanishes is known here. Without it, less is charged.
            may_have_cost_a_worker: true,
            dispatch_seq: if by_attempt { step.attempt } else { step.dispatch_seq }.into(),
            attempt: step.attempt.into(),
            tries: step.tries.into(),
            max_attempts: scenario.max_attempts(asked.slot),
        };
        let claim = Claim {
            step_id: StepId::from_uuid(Uuid::nil()),
            dispatch_seq: if by_attempt { asked.attempt } else { asked.seq }.into(),
            redelivered: asked.redelivered || scenario.is(Mutant::ChargedForSweeps),
            begun: asked.begun.filter(|_| !scenario.is(Mutant::BegunAgain)).map(u32::from),
        };
        let decision = decide_claim(&claim, &facts);
        if facts.held_by_claimant && matches!(decision, ClaimDecision::Run { .. }) {
            watch.reach("claim: asked again after it was granted");
        }
        if let ClaimDecision::Run { attempt, tries } = decision {
            let step = self.at(asked.slot);
            if step.state == StepState::InProgress {
                step.follow(StepEvent::Redispatched, watch);
            }
            step.follow(StepEvent::Started, watch);
            (step.attempt, step.tries) = (attempt as u8, tries as u8);
            step.sent_seq = step.dispatch_seq;
            step.lease = Lease::Of(asked.worker);
        }
        Some(decision)
    }

    /// `claims/renew_leases.sql`; whether anything changed.
    pub(crate) fn renew_lease(
        &mut self,
        slot: usize,
        attempt: u8,
        worker: u8,
        watch: &mut Watch,
    ) -> bool {
        let Some(step) = self.steps[slot].as_mut() else { return false };
        if step.attempt != attempt || !step.is_live() || step.outcome.is_some() {
            return false;
        }
        if step.state == StepState::Enqueued {
            step.follow(StepEvent::Started, watch);
        } else if step.lease == Lease::Of(worker) {
            return false;
        }
        step.lease = Lease::Of(worker);
        true
    }

    /// `claims/release.sql`; whether it was taken back.
    pub(crate) fn release(
        &mut self,
        scenario: &Scenario,
        released: Released,
        watch: &mut Watch,
    ) -> bool {
        let Some(step) = self.steps[released.slot].as_mut() else { return false };
        let same_seq = step.dispatch_seq == released.seq;
        let leased = step.lease == Lease::Of(released.worker);
        let granted_unheard = same_seq && step.attempt > released.attempt && leased;
        let sent_again = step.dispatch_seq > released.seq
            && step.attempt == released.attempt
            && leased
            && !scenario.is(Mutant::HeldCopyCharged);
        let matches =
            (same_seq && step.attempt == released.attempt || granted_unheard || sent_again)
                && step.is_live()
                && step.outcome.is_none();
        if matches {
            step.follow(StepEvent::Redispatched, watch);
            step.dispatch_seq += 1;
            let begun_again = sent_again && !scenario.is(Mutant::UnstartedAgain);
            step.attempt += u8::from(!released.unstarted || granted_unheard || begun_again);
            step.claim_required = false;
            step.lease = Lease::None;
        }
        if matches && granted_unheard {
            watch.reach("release: granted, but not heard of");
        }
        if matches && sent_again {
            watch.reach("release: sent again meanwhile");
        }
        watch.reach(match (matches, released.unstarted) {
            (false, _) => "release: not taken back",
            (true, true) => "release: unstarted",
            (true, false) => "release: started",
        });
        matches
    }

    /// The members that `published_upto` says are on the bus.
    pub(crate) fn is_published(&self, scenario: &Scenario, slot: usize) -> bool {
        scenario.batch_of(slot).is_none_or(|n| {
            let ordinal = slot - scenario.batches[n].first;
            let published = |batch: &Batch| ordinal < usize::from(batch.published_upto);
            self.batches[n].as_ref().is_some_and(published)
        })
    }

    /// `reconcile/find_lost.sql`, and once more `reconcile/redispatch.sql`.
    pub(crate) fn may_be_lost(&self, scenario: &Scenario, slot: usize) -> bool {
        self.step(slot).is_some_and(|step| {
            step.is_live()
                && step.sent_seq == step.dispatch_seq
                && step.lease == Lease::None
                && step.outcome.is_none()
        }) && self.is_open(scenario, slot)
            && self.is_published(scenario, slot)
    }

    /// `reconcile/redispatch.sql`.
    pub(crate) fn redispatch(&mut self, scenario: &Scenario, slot: usize, watch: &mut Watch) {
        let step = self.at(slot);
        step.follow(StepEvent::Redispatched, watch);
        if scenario.is(Mutant::SameMessageId) {
            step.sent_seq = step.dispatch_seq - 1;
        } else {
            step.dispatch_seq += 1;
        }
        step.claim_required = true;
        step.lease = Lease::None;
        watch.reach("dispatched again");
    }

    /// `reconcile/count_dispatched.sql`.
    pub(crate) fn count_dispatched(&self, scenario: &Scenario) -> i32 {
        let held_back = |step: &Step| {
            step.state == StepState::WaitingForRetry
                || step.state == StepState::Enqueued && step.sent_seq < step.dispatch_seq
        };
        let mut outstanding = 0;
        for (n, batch) in self.batches.iter().enumerate() {
            let Some(batch) = batch else { continue };
            if batch.settled || batch.state != tasker_messages::BatchState::Sealed {
                continue;
            }
            let members = self.existing().filter(|(slot, _)| scenario.batch_of(*slot) == Some(n));
            let held_back = members.filter(|(_, step)| held_back(step)).count() as i32;
            let ended = i32::from(batch.succeeded) + i32::from(batch.failed);
            let steps = i32::from(batch.published_upto) - ended - held_back;
            // The fewest messages that can have brought them.
            outstanding += steps.max(0).unsigned_abs().div_ceil(batch.bundled.into()) as i32;
        }
        let single = |(slot, step): &(usize, &Step)| {
            scenario.batch_of(*slot).is_none()
                && step.is_live()
                && step.sent_seq == step.dispatch_seq
                && step.outcome.is_none()
        };
        let singles = if self.is_finished() { 0 } else { self.existing().filter(single).count() };
        outstanding + singles as i32
    }

    /// `dispatch/find_unsent.sql`: ready, not recorded as sent, under no lease.
    pub(crate) fn is_unsent(&self, slot: usize) -> bool {
        self.step(slot).is_some_and(|step| {
            step.is_live()
                && step.sent_seq < step.dispatch_seq
                && (step.lease == Lease::None || step.outcome.is_some())
        })
    }

    /// `dispatch/load_ready.sql`.
    pub(crate) fn is_to_publish(&self, scenario: &Scenario, slot: usize) -> bool {
        self.is_unsent(slot)
            && self.is_open(scenario, slot)
            && self.step(slot).is_some_and(|step| step.outcome.is_none())
    }

    /// `dispatch/mark_sent.sql`.
    pub(crate) fn mark_sent(&mut self, slot: usize, seq: u8) {
        if let Some(step) = self.steps[slot].as_mut().filter(|step| step.sent_seq < seq) {
            step.sent_seq = seq;
        }
    }
}
