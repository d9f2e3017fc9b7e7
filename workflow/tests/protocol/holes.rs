//! What the model found and the product still does. Searches let it pass and count it, unless they are
//! strict about it; here they are. Whoever mends one of these finds its test failing: the exemption in
//! `requests.rs` or `workers.rs` goes then, and the test here. `docs/model.md` says what each costs.

use crate::scenario::Fault::{
    Drain, Drop, Duplicate, Expiry, Hasty, Late, Loss, Restart, SlowLease, StoreLoss, WorkerCrash,
};
use crate::scenario::{Fault, Scenario};
use crate::scenarios;
use crate::search::explore;
use crate::tests::{MOST, with};

/// Something that the product does and should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hole {
    ClaimChargedAgain,
    LateClaim,
    LaterAcknowledged,
    DrainAcknowledged,
    PoisonAcknowledged,
    NewWorkerTrusts,
    CopyCharged,
    HeldCopyCharged,
    SpanUnclaimed,
    MemberUnclaimed,
}

impl Hole {
    /// What is counted where it is let pass.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Hole::LaterAcknowledged => "hole: an answer acknowledges a later message",
            Hole::DrainAcknowledged => "hole: a step is acknowledged that was not taken back",
            Hole::PoisonAcknowledged => "hole: a step is acknowledged that was not poisoned",
            Hole::SpanUnclaimed => "hole: a span is published again without a claim",
            Hole::MemberUnclaimed => {
                "hole: a member is published without the claim that its row requires"
            }
            _ => "hole",
        }
    }
}

/// Finds the shortest way to break a rule by what the product does.
fn breaks(hole: Hole, scenario: Scenario, total: u8, faults: &[Fault], rule: &str) {
    let strict = Scenario { strict_about: Some(hole), ..with(scenario, total, faults) };
    let flaw = explore(&strict, MOST).flaw.expect("still a hole");
    println!("{hole:?}: {}", flaw.text());
    assert_eq!(flaw.rule, rule);
}

const CHARGED: &str = "a try was charged although no worker vanished";
const NEEDED: &str = "a message is acknowledged that is still needed";
const TWICE: &str = "one attempt runs twice";

#[test]
fn a_claim_that_is_asked_again_is_charged_again() {
    breaks(Hole::ClaimChargedAgain, scenarios::diamond(), 2, &[Expiry, Drop], CHARGED);
}

#[test]
fn a_claim_that_arrives_late_is_charged_again() {
    breaks(Hole::LateClaim, scenarios::diamond(), 2, &[Expiry, Late], CHARGED);
}

#[test]
fn a_claim_that_is_dropped_acknowledges_a_later_message() {
    breaks(Hole::LaterAcknowledged, scenarios::batch(), 1, &[Loss], NEEDED);
}

#[test]
fn draining_acknowledges_a_step_that_is_not_taken_back() {
    breaks(Hole::DrainAcknowledged, scenarios::endings(), 1, &[Drain], NEEDED);
}

#[test]
fn a_step_that_moved_on_is_called_poisoned_and_acknowledged() {
    let two = [WorkerCrash, Late];
    breaks(Hole::PoisonAcknowledged, scenarios::batch_twice(), 2, &two, NEEDED);
}

#[test]
fn a_new_worker_trusts_a_bus_that_was_restarted() {
    breaks(Hole::NewWorkerTrusts, scenarios::diamond(), 2, &[Restart, WorkerCrash], TWICE);
}

#[test]
fn a_message_that_was_taken_twice_is_charged() {
    breaks(Hole::CopyCharged, scenarios::chain(), 2, &[Hasty, Duplicate], CHARGED);
}

#[test]
fn a_held_copy_of_a_drained_step_is_charged() {
    breaks(Hole::HeldCopyCharged, scenarios::chain(), 2, &[Hasty, Drain], CHARGED);
}

#[test]
fn members_that_were_not_confirmed_are_published_again_without_a_claim() {
    let two = [StoreLoss, Drop];
    breaks(Hole::SpanUnclaimed, scenarios::batch_twice(), 2, &two, TWICE);
}

#[test]
fn a_slow_publisher_ignores_that_a_member_must_be_claimed() {
    let three = [Hasty, SlowLease, Loss];
    breaks(Hole::MemberUnclaimed, scenarios::batch_twice(), 3, &three, TWICE);
}
