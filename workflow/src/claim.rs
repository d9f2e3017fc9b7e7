//! Claims: whether a step that was delivered before may run.

use tasker_messages::{Claim, ClaimVerdict, DropReason};

/// A step as the claiming transaction found it, under a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimFacts {
    /// Whether it has an outcome.
    pub ended: bool,
    /// Whether it can run at all: enqueued or in progress, in a live task and a sealed batch.
    pub live: bool,
    /// Whether another worker holds a lease that has not run out.
    pub held_by_other: bool,
    /// Whether it runs under a lease of the claiming worker that has not run out.
    pub held_by_claimant: bool,
    /// Whether a worker may have vanished with it: somebody was known to have it, or a worker of the
    /// namespace has vanished. nats-server also delivers again what it had picked for a worker in the
    /// moment in which that one ended.
    pub may_have_cost_a_worker: bool,
    /// The latest dispatch.
    pub dispatch_seq: u32,
    /// The current attempt.
    pub attempt: u32,
    /// How much of the retry budget is used up.
    pub tries: u32,
    /// The retry budget.
    pub max_attempts: u32,
}

/// What to do about a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimDecision {
    /// It runs as this attempt.
    Run {
        /// The new fence.
        attempt: u32,
        /// The charged budget.
        tries: u32,
    },
    /// Another worker holds it.
    Held,
    /// There is nothing to run.
    Drop(DropReason),
    /// Its workers vanished as often as the budget allows: it ends with an error.
    Poison {
        /// The charged budget.
        tries: u32,
    },
}

impl ClaimDecision {
    /// What the worker is told.
    pub const fn verdict(self) -> ClaimVerdict {
        match self {
            ClaimDecision::Run { attempt, tries } => ClaimVerdict::Run { attempt, tries },
            ClaimDecision::Held => ClaimVerdict::Held,
            ClaimDecision::Drop(reason) => ClaimVerdict::Drop(reason),
            ClaimDecision::Poison { .. } => ClaimVerdict::Drop(DropReason::Poisoned),
        }
    }
}

/// Decides a claim.
///
/// Whether a *message* is out of date is judged by `dispatch_seq`, never by the attempt: judging by
/// the attempt would lose the only message of a step whose claimant died.
///
/// A redelivery is charged if it may have cost a worker. Should one die before anybody has heard of it,
/// that is not known; but whoever runs what was delivered again has claimed it before, and is known from
/// then on. So it is missed once at the most of each dispatch.
pub fn decide_claim(claim: &Claim, facts: &ClaimFacts) -> ClaimDecision {
    if facts.ended {
        return ClaimDecision::Drop(DropReason::Ended);
    }
    if facts.dispatch_seq != claim.dispatch_seq {
        return ClaimDecision::Drop(DropReason::Superseded);
    }
    if !facts.live {
        return ClaimDecision::Drop(DropReason::Unknown);
    }
    if facts.held_by_other {
        return ClaimDecision::Held;
    }
    if facts.held_by_claimant && claim.begun != Some(facts.attempt) {
        // It was granted before: the answer was lost, or the request came twice. A worker that runs the
        // step does not ask.
        return ClaimDecision::Run { attempt: facts.attempt, tries: facts.tries };
    }
    let is_charged = claim.redelivered && facts.may_have_cost_a_worker;
    let tries = facts.tries + u32::from(is_charged);
    if tries >= facts.max_attempts && is_charged {
        return ClaimDecision::Poison { tries };
    }
    ClaimDecision::Run { attempt: facts.attempt + 1, tries }
}

#[cfg(test)]
mod tests {
    use tasker_messages::StepId;

    use super::*;

    const FACTS: ClaimFacts = ClaimFacts {
        ended: false,
        live: true,
        held_by_other: false,
        held_by_claimant: false,
        may_have_cost_a_worker: true,
        dispatch_seq: 2,
        attempt: 4,
        tries: 1,
        max_attempts: 3,
    };

    fn check_begun(facts: ClaimFacts, begun: Option<u32>, expect: ClaimDecision) {
        let step_id = StepId::from_uuid(uuid::Uuid::nil());
        let claim = Claim { step_id, dispatch_seq: 2, redelivered: true, begun };
        assert_eq!(decide_claim(&claim, &facts), expect, "{facts:?} {begun:?}");
    }

    fn check(facts: ClaimFacts, redelivered: bool, expect: ClaimDecision) {
        let step_id = StepId::from_uuid(uuid::Uuid::nil());
        let claim = Claim { step_id, dispatch_seq: 2, redelivered, begun: None };
        assert_eq!(decide_claim(&claim, &facts), expect, "{facts:?}");
    }

    #[test]
    fn claims() {
        check(FACTS, true, ClaimDecision::Run { attempt: 5, tries: 2 });
        check(FACTS, false, ClaimDecision::Run { attempt: 5, tries: 1 });
        let last = ClaimFacts { tries: 2, ..FACTS };
        check(last, true, ClaimDecision::Poison { tries: 3 });
        check(last, false, ClaimDecision::Run { attempt: 5, tries: 2 });
        // Picked for a worker that had ended in good order.
        let spared = ClaimFacts { may_have_cost_a_worker: false, ..last };
        check(spared, true, ClaimDecision::Run { attempt: 5, tries: 2 });
        check(spared, false, ClaimDecision::Run { attempt: 5, tries: 2 });
        let ended = ClaimFacts { ended: true, dispatch_seq: 3, ..FACTS };
        check(ended, true, ClaimDecision::Drop(DropReason::Ended));
        let moved = ClaimFacts { dispatch_seq: 3, held_by_other: true, ..FACTS };
        check(moved, true, ClaimDecision::Drop(DropReason::Superseded));
        let held = ClaimFacts { held_by_other: true, ..last };
        check(held, true, ClaimDecision::Held);
        // Asked again after a lost answer: nothing rises, and nothing is charged or poisoned.
        let granted = ClaimFacts { held_by_claimant: true, ..last };
        check(granted, true, ClaimDecision::Run { attempt: 4, tries: 2 });
        check(ClaimFacts { ended: true, ..granted }, true, ClaimDecision::Drop(DropReason::Ended));
        // Unless it has begun that attempt, and given up.
        let own = ClaimFacts { held_by_claimant: true, ..FACTS };
        check_begun(own, Some(4), ClaimDecision::Run { attempt: 5, tries: 2 });
        check_begun(own, Some(3), ClaimDecision::Run { attempt: 4, tries: 1 });
        check_begun(last, Some(4), ClaimDecision::Poison { tries: 3 });
        let dead = ClaimFacts { live: false, ..FACTS };
        check(dead, true, ClaimDecision::Drop(DropReason::Unknown));
    }
}
