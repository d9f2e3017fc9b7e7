//! The scenarios that are searched whole.

use crate::scenario::Fault::{
    Abandoned, Ambiguous, Cancel, Drain, Drop, Duplicate, Expiry, Hasty, Late, Loss, NewConsumer,
    NodeCrash, Permanent, Restart, Retryable, SlowLease, StoreLoss, Surplus, Unserved, WorkerCrash,
};
use crate::scenario::{Budget, Fault, Scenario};

const BATCH: &[&str] = &["split b", "work w split", "join j work"];
const CHAIN: &[&str] = &["a -", "b - a", "c - b"];
const DIAMOND: &[&str] = &["a -", "b -", "c - a b"];

/// Faults that cost few states each.
const USUAL: &[Fault] =
    &[WorkerCrash, NodeCrash, Expiry, Loss, Duplicate, Drop, Late, Ambiguous, SlowLease];

fn budget(total: u8, kinds: &[&[Fault]]) -> Budget {
    let all: Vec<(Fault, u8)> = kinds.iter().copied().flatten().map(|&fault| (fault, 1)).collect();
    Budget::new(total, &all)
}

/// A sealed batch of two members and its aggregator, from its first publish.
pub(crate) fn batch() -> Scenario {
    let scenario = Scenario::new("batch", BATCH, &[("work", 2)], 3);
    Scenario { begins_sealed: true, budget: budget(1, &[USUAL]), ..scenario }
}

/// A batch of one member.
pub(crate) fn member() -> Scenario {
    let scenario = Scenario::new("member", BATCH, &[("work", 1)], 3);
    Scenario { begins_sealed: true, slots: 1, ..scenario }
}

/// The first with two faults on a path.
pub(crate) fn batch_twice() -> Scenario {
    let kinds = &[WorkerCrash, NodeCrash, Loss];
    Scenario { name: "batch, two faults", slots: 1, budget: budget(2, &[kinds]), ..batch() }
}

/// The same, while the bus or its observers err.
pub(crate) fn batch_and_bus() -> Scenario {
    Scenario {
        name: "batch, bus restarted",
        budget: budget(1, &[&[Restart, NewConsumer, Hasty]]),
        ..batch()
    }
}

/// Members that come in one message, with any fault.
pub(crate) fn bundle() -> Scenario {
    let budget = budget(1, &[USUAL, &[Restart, NewConsumer, Hasty, Surplus, Drain, Abandoned]]);
    Scenario { name: "bundle", bundles: 2, waits_for_slot: true, budget, ..batch() }
}

/// Three members in two messages, at workers of one slot.
pub(crate) fn bundles() -> Scenario {
    let scenario = Scenario::new("bundles", BATCH, &[("work", 3)], 3);
    let budget = budget(1, &[&[WorkerCrash, NodeCrash, Loss, Expiry]]);
    Scenario { begins_sealed: true, slots: 1, bundles: 2, budget, ..scenario }
}

/// Three steps in a row that are handed over with the answers.
pub(crate) fn chain() -> Scenario {
    let scenario = Scenario::new("chain", CHAIN, &[], 3);
    let budget = budget(2, &[USUAL, &[Hasty, Drain]]);
    Scenario { hand_over: true, waits_for_slot: true, instant: false, budget, ..scenario }
}

/// Three steps in a row on a bus that loses its store, or forgets.
pub(crate) fn chain_and_bus() -> Scenario {
    let scenario = Scenario::new("chain, store lost", CHAIN, &[], 3);
    let also = &[StoreLoss, Restart, WorkerCrash, NodeCrash, Expiry, Late];
    Scenario { slots: 1, budget: budget(1, &[also]), ..scenario }
}

/// Two parents that end at the same time, and their child.
pub(crate) fn diamond() -> Scenario {
    let scenario = Scenario::new("diamond", DIAMOND, &[], 3);
    Scenario { budget: budget(1, &[USUAL, &[Hasty]]), ..scenario }
}

/// Failures that may be tried again, with a budget of two tries, and a worker that dies.
pub(crate) fn retries() -> Scenario {
    let scenario = Scenario::new("retries", CHAIN, &[], 2);
    let kinds = [(WorkerCrash, 1), (Drop, 1), (Retryable, 1), (Unserved, 1)];
    Scenario { slots: 1, budget: Budget::new(1, &kinds), ..scenario }
}

/// Workers that vanish, as often as the budget of two tries allows.
pub(crate) fn poison() -> Scenario {
    let scenario = Scenario::new("poison", DIAMOND, &[], 2);
    let kinds = [(WorkerCrash, 2), (NodeCrash, 1), (Ambiguous, 1)];
    Scenario { slots: 1, budget: Budget::new(2, &kinds), ..scenario }
}

/// From the submission of an analyzer to its aggregator, with failures of members.
pub(crate) fn expansion() -> Scenario {
    let scenario = Scenario::new("expansion", BATCH, &[("work", 2)], 1);
    let kinds = &[NodeCrash, Ambiguous, Drop, Permanent, Cancel];
    Scenario { slots: 1, budget: budget(1, &[kinds]), ..scenario }
}

/// A child that converging gives a parent while the parent's outcome waits for its lock.
pub(crate) fn late_edges() -> Scenario {
    let scenario = Scenario::new("late edges", &["a -", "b -", "j j b", "z - a j"], &[], 3);
    let budget = budget(1, &[&[NodeCrash, Ambiguous, Drop]]);
    Scenario { split_apply: true, budget, ..scenario }
}

/// A cancelled task, and workers that drain.
pub(crate) fn endings() -> Scenario {
    let scenario = Scenario::new("drain and cancel", BATCH, &[("work", 2)], 3);
    let budget = budget(2, &[&[Cancel, Drain, Expiry, Surplus]]);
    Scenario { begins_sealed: true, waits_for_slot: true, slots: 1, budget, ..scenario }
}
