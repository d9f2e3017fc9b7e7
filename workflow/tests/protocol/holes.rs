//! What the model found. The product does some of it still: searches let that pass, unless they are
//! strict about it, and whoever mends it finds its test failing: the exemption goes then, and the test
//! here. What is mended must hold by the faults that once broke it. `docs/model.md` says more of each.

use crate::mutant::Mutant as M;
use crate::scenario::Fault::{
    Drain, Drop, Duplicate, Expiry, Hasty, Late, Loss, Restart, SlowLease, StoreLoss, WorkerCrash,
};
use crate::scenario::{Fault, Scenario};
use crate::scenarios;
use crate::search::explore;
use crate::tests::{MOST, caught, with};

/// Something that the product does and should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hole {
    LateClaim,
    LaterAcknowledged,
    CopyCharged,
    HeldCopyCharged,
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
const OVER: &str = "what is over is sent, and need not be claimed";
const TWICE: &str = "one attempt runs twice";

#[test]
fn a_message_that_was_taken_twice_is_charged() {
    breaks(Hole::CopyCharged, scenarios::chain(), 2, &[Hasty, Duplicate], CHARGED);
}

#[test]
fn a_held_copy_of_a_drained_step_is_charged() {
    breaks(Hole::HeldCopyCharged, scenarios::chain(), 2, &[Hasty, Drain], CHARGED);
}

#[test]
fn a_late_claim_that_is_granted_to_nobody_is_charged() {
    breaks(Hole::LateClaim, scenarios::batch_twice(), 2, &[WorkerCrash, Late], CHARGED);
}

#[test]
fn a_report_acknowledges_a_later_message() {
    breaks(Hole::LaterAcknowledged, scenarios::chain(), 2, &[Loss, WorkerCrash], NEEDED);
}

/// What is mended, as mutants: the guard that mends it is off. With it, the same faults break nothing.
#[test]
fn what_is_mended_holds() {
    let diamond = |total, faults| with(scenarios::diamond(), total, faults);
    let batch = |total, faults| with(scenarios::batch(), total, faults);
    let member = |total, faults| with(scenarios::member(), total, faults);
    let steps = &["split b", "work w split"];
    let alone = Scenario { workers: 1, ..Scenario::new("alone", steps, &[("work", 1)], 3) };
    let alone = Scenario { begins_sealed: true, slots: 1, ..alone };
    let drained = with(scenarios::endings(), 2, &[Drain, Expiry]);
    let one_try = Scenario { slots: 1, ..Scenario::new("one try", &["a -", "b - a"], &[], 1) };
    let poisoned = with(one_try, 2, &[WorkerCrash, Restart]);
    caught(vec![
        (M::GrantedAnew, diamond(2, &[Expiry, Drop]), CHARGED),
        (M::VerdictOnLater, batch(1, &[Loss]), NEEDED),
        (M::AckDrained, drained, NEEDED),
        (M::AckUnpoisoned, poisoned, NEEDED),
        (M::SpanUnclaimed, member(2, &[StoreLoss, Drop]), TWICE),
        (M::MemberUnclaimed, member(3, &[Hasty, SlowLease, Loss]), TWICE),
        (M::ReleasedMember, with(alone, 3, &[Hasty, Drain, StoreLoss]), TWICE),
        (M::LateUnclaimed, diamond(2, &[Hasty, Duplicate]), OVER),
        (M::RepeatedUnclaimed, diamond(2, &[Drop, Restart]), TWICE),
        (M::NewWorkerTrusts, diamond(2, &[Restart, WorkerCrash]), TWICE),
    ]);
}
