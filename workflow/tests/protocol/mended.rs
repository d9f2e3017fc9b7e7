//! What the model found and the product has mended since, as mutants: the guard that mends it is off. With
//! it, the same faults break nothing. `docs/model.md` says more of each, and what is left.

use crate::mutant::Mutant as M;
use crate::scenario::Fault::{
    Abandoned, Drain, Drop, Duplicate, Expiry, Hasty, Late, Loss, NewConsumer, Restart, SlowLease,
    StoreLoss, Surplus, WorkerCrash,
};
use crate::scenario::Scenario;
use crate::scenarios;
use crate::tests::{caught, with};

const CHARGED: &str = "a try was charged although no worker vanished";
const NEEDED: &str = "a message is acknowledged that is still needed";
const SECOND: &str = "a second copy need not be claimed";
const TWICE: &str = "one attempt runs twice";

#[test]
fn what_is_mended_holds() {
    let diamond = |total, faults| with(scenarios::diamond(), total, faults);
    let chain = |total, faults| with(scenarios::chain(), total, faults);
    let batch = |total, faults| with(scenarios::batch(), total, faults);
    let member = |total, faults| with(scenarios::member(), total, faults);
    let pair = |total, faults| {
        let pair = Scenario::new("pair", &["a -", "b - a"], &[], 3);
        with(Scenario { slots: 1, ..pair }, total, faults)
    };
    let waiting = |total, faults| Scenario { waits_for_slot: true, ..pair(total, faults) };
    let alone = |total, faults| {
        let alone = Scenario::new("alone", &["split b", "work w split"], &[("work", 1)], 3);
        with(Scenario { begins_sealed: true, slots: 1, workers: 1, ..alone }, total, faults)
    };
    let handed = Scenario::new("handed", &["a -", "b - a", "x -"], &[], 3);
    let handed = Scenario { slots: 1, hand_over: true, instant: false, ..with(handed, 1, &[Late]) };
    let drained = with(scenarios::endings(), 2, &[Drain, Expiry]);
    let one_try = Scenario { slots: 1, ..Scenario::new("one try", &["a -", "b - a"], &[], 1) };
    let poisoned = with(one_try, 2, &[WorkerCrash, Restart]);
    caught(vec![
        (M::GrantedAnew, diamond(2, &[Expiry, Drop]), CHARGED),
        (M::VerdictOnLater, batch(1, &[Loss]), NEEDED),
        (M::AckDrained, drained, NEEDED),
        (M::AckUnpoisoned, poisoned, NEEDED),
        (M::SpanUnclaimed, alone(2, &[StoreLoss, Drop]), TWICE),
        (M::MemberUnclaimed, member(3, &[Hasty, SlowLease, Loss]), TWICE),
        (M::LaterAcknowledged, chain(2, &[Loss, WorkerCrash]), NEEDED),
        (M::LateClaim, with(scenarios::batch_twice(), 2, &[WorkerCrash, Late]), CHARGED),
        (M::BegunAgain, pair(2, &[Abandoned, Restart]), TWICE),
        (M::ClaimedWhileGivenBack, waiting(2, &[Surplus, Expiry]), TWICE),
        (M::LeftWhileGivenBack, waiting(3, &[Surplus, Hasty, NewConsumer]), CHARGED),
        (M::CopyCharged, chain(2, &[Hasty, Duplicate]), CHARGED),
        (M::HeldCopyCharged, chain(2, &[Hasty, Drain]), CHARGED),
        (M::UnstartedAgain, handed, TWICE),
        (M::ReleasedMember, alone(3, &[Hasty, Drain, StoreLoss]), TWICE),
        (M::LateUnclaimed, diamond(2, &[Hasty, Duplicate]), SECOND),
        (M::RepeatedUnclaimed, pair(2, &[Drop, Restart]), TWICE),
        (M::NewWorkerTrusts, pair(2, &[Restart, WorkerCrash]), TWICE),
    ]);
}
