//! What the searches must show.

use crate::mutant::Mutant as M;
use crate::scenario::Fault::{
    Abandoned, Ambiguous, Drop, Expiry, Loss, NewConsumer, NodeCrash, Restart, SlowLease, Surplus,
    WorkerCrash,
};
use crate::scenario::{Budget, Fault, Scenario};
use crate::scenarios;
use crate::search::{Found, explore};

/// No scenario has more states than this.
pub(crate) const MOST: usize = 4_000_000;

/// Everything that must hold holds in each state, the end can be reached from each, and the search has
/// come by these paths: without them it would show nothing.
fn holds(scenario: &Scenario, must_reach: &[&str]) {
    let Found { states, transitions, depth, took, reached, flaw } = explore(scenario, MOST);
    println!(
        "{}: {states} states, {transitions} transitions, depth {depth}, {:.1} s",
        scenario.name,
        took.as_secs_f64()
    );
    if let Some(flaw) = flaw {
        panic!("{}: {}", scenario.name, flaw.text());
    }
    let missing: Vec<&&str> =
        must_reach.iter().filter(|path| !reached.contains_key(*path)).collect();
    assert!(
        missing.is_empty(),
        "{}: never came by {missing:?}, only by {reached:#?}",
        scenario.name
    );
}

#[test]
fn a_batch_with_any_fault() {
    let paths = [
        "claim: runs",
        "claim: held",
        "claim: asked again after it was granted",
        "claim: of the message that came after it",
        "claim: dropped, ended",
        "claim: dropped, superseded",
        "report: applied",
        "report: duplicate",
        "report: stale, not sent again",
        "report: stale, sent again",
        "dispatched again",
        "swept",
        "batch taken over",
        "batch converged",
        "commit in doubt",
        "in doubt: was committed",
        "in doubt: was not committed",
        "message lost",
        "worker died",
        "orchestrator died",
        "late request",
        "acknowledgement lost",
        "answer lost",
        "advance: not confirmed",
        "advance: passed over",
        "publish: known to the bus",
        "time of a message ran out",
        "delivery: of a held step",
        "task complete",
    ];
    holds(&scenarios::batch(), &paths);
}

#[test]
fn a_batch_with_two_faults() {
    holds(&scenarios::batch_twice(), &["batch converged", "worker died", "orchestrator died"]);
}

#[test]
fn a_batch_on_a_bus_that_forgets() {
    let paths =
        ["bus restarted", "consumer made anew", "delivery: older than the held one", "claim: held"];
    holds(&scenarios::batch_and_bus(), &paths);
}

#[test]
fn members_that_come_in_one_message() {
    let paths = [
        "publish: a bundle",
        "delivery: of a bundle",
        "delivery: of a held step",
        "surplus given back",
        "worker drained",
        "worker died",
        "message lost",
        "dispatched again",
        "bus restarted",
        "consumer made anew",
        "batch taken over",
        "run without an outcome",
        "claim: dropped, ended",
        "batch converged",
    ];
    holds(&scenarios::bundle(), &paths);
    let paths = ["bundle that came again: given back", "claim: dropped, ended", "message lost"];
    holds(&scenarios::bundles(), &paths);
    let two = with(scenarios::bundle(), 2, &[WorkerCrash, NodeCrash]);
    let two = Scenario { name: "bundle, two faults", waits_for_slot: false, slots: 1, ..two };
    holds(&two, &["publish: a bundle", "worker died", "orchestrator died"]);
    let two = with(scenarios::bundle(), 2, &[Expiry, Restart, NewConsumer]);
    let two = Scenario { name: "bundle, and the bus errs", waits_for_slot: false, slots: 1, ..two };
    holds(&two, &["publish: a bundle", "bus restarted", "time of a message ran out"]);
    let two = with(scenarios::bundle(), 2, &[Expiry, Surplus, Abandoned]);
    let two = Scenario { name: "bundle, given back", slots: 1, ..two };
    holds(&two, &["delivery: of a step that is given back", "run without an outcome"]);
}

#[test]
fn a_chain_that_is_handed_over() {
    let paths = [
        "step handed over",
        "handed step: given back",
        "handed step: held already",
        "release: started",
        "release: unstarted",
        "release: not taken back",
        "worker drained",
        "delivery: of a later attempt than the held one",
        "publish: taken twice",
        "delivery: of a copy",
        "release: sent again meanwhile",
    ];
    holds(&scenarios::chain(), &paths);
}

#[test]
fn a_chain_on_a_bus_that_loses_its_store() {
    let paths = ["store lost", "bus restarted", "dispatched again", "claim: dropped, superseded"];
    holds(&scenarios::chain_and_bus(), &paths);
}

#[test]
fn a_diamond() {
    holds(&scenarios::diamond(), &["in doubt: was committed", "in doubt: was not committed"]);
}

/// What is left out makes no difference: the same search without leaving anything out.
#[test]
fn a_batch_in_every_order() {
    let scenario = scenarios::member();
    let usual = scenarios::batch().budget;
    let scenario =
        Scenario { name: "member, every order", every_order: true, budget: usual, ..scenario };
    holds(&scenario, &["claim: held", "in doubt: was committed"]);
}

#[test]
fn failures_that_are_tried_again() {
    let paths = [
        "retry scheduled",
        "retry scheduled, not charged",
        "claim: poison",
        "poisoned",
        "task error",
        "task blocked by failures",
    ];
    holds(&scenarios::retries(), &paths);
}

#[test]
fn workers_that_vanish_too_often() {
    let paths = ["claim: poison", "poisoned", "poisoned, but it had moved on", "task error"];
    holds(&scenarios::poison(), &paths);
}

#[test]
fn an_expansion() {
    let paths = [
        "batch sealed",
        "batch converged",
        "expansion cancelled",
        "members cancelled",
        "claim: dropped, unknown",
        "task cancelled",
        "task error",
        "task blocked by failures",
    ];
    holds(&scenarios::expansion(), &paths);
}

#[test]
fn edges_that_come_late() {
    holds(&scenarios::late_edges(), &["report: edges came meanwhile"]);
}

#[test]
fn workers_that_drain_and_a_task_that_is_cancelled() {
    let paths = [
        "worker drained",
        "release: unstarted",
        "release: granted, but not heard of",
        "surplus given back",
        "delivery: of a step that is given back",
        "task cancelled",
        "members cancelled",
    ];
    holds(&scenarios::endings(), &paths);
}

pub(crate) fn with(scenario: Scenario, total: u8, faults: &[Fault]) -> Scenario {
    let kinds: Vec<(Fault, u8)> = faults.iter().map(|&fault| (fault, 1)).collect();
    Scenario { budget: Budget::new(total, &kinds), ..scenario }
}

/// A guard that is off, where, and the rule that it breaks.
fn mutants() -> Vec<(M, Scenario, &'static str)> {
    let diamond = |total, faults| with(scenarios::diamond(), total, faults);
    let chain = |total, faults| with(scenarios::chain(), total, faults);
    let batch = |total, faults| with(scenarios::batch(), total, faults);
    let bundle = |total, faults| with(scenarios::bundle(), total, faults);
    let expansion = |total, faults| with(scenarios::expansion(), total, faults);
    let edges = |total, faults| with(scenarios::late_edges(), total, faults);
    let steps = &["split b", "work w split", "join j work", "other -", "next - split other"];
    let two_parents = Scenario::new("two parents", steps, &[("work", 2)], 3);
    let end = "the end cannot be reached any more";
    let needed = "a message is acknowledged that is still needed";
    let other = "an outcome is not the current attempt's";
    let twice = "one attempt runs twice";
    let charged = "a try was charged although no worker vanished";
    let parents = "a step waits for another number of parents than it has";
    vec![
        (M::NoAttemptFence, batch(1, &[Expiry]), other),
        (M::NoTerminalTest, batch(1, &[Drop]), "an outcome was applied twice"),
        (M::CountsWithoutChange, batch(1, &[Drop]), "what remains of a batch is miscounted"),
        (
            M::PublishBeforeCommit,
            diamond(1, &[Ambiguous]),
            "a step runs before its parents have ended",
        ),
        (M::AckBeforeCommit, diamond(0, &[]), needed),
        (M::AckHeld, diamond(1, &[Expiry]), needed),
        (M::AckStale, diamond(1, &[Expiry]), needed),
        (M::SameMessageId, diamond(1, &[Loss]), end),
        (M::NoClaimOnRedelivery, diamond(1, &[WorkerCrash]), twice),
        (M::NoClaimAfterRestart, diamond(1, &[Restart]), twice),
        (M::NoLookAtConsumer, diamond(1, &[NewConsumer]), twice),
        (M::SweepWithoutClaim, chain(1, &[SlowLease]), twice),
        (M::JudgedByAttempt, diamond(2, &[Expiry, WorkerCrash]), needed),
        (M::ChargedForSweeps, diamond(1, &[Loss]), charged),
        (M::RaisedAfterOutcome, diamond(1, &[Drop]), other),
        (M::CheckedBeforeCommit, Scenario { split_apply: true, ..batch(0, &[]) }, end),
        (M::ConvergedWithoutLock, batch(0, &[]), "a counter of the task fell below zero"),
        (M::NoSealTest, expansion(0, &[]), "a member runs before its batch is sealed"),
        (M::SealedTwice, two_parents, parents),
        (M::EdgesNotCompared, edges(0, &[]), parents),
        (M::NoSweep, diamond(1, &[NodeCrash]), end),
        (M::NoReconciler, diamond(1, &[Loss]), end),
        (M::BundleAcknowledged, bundle(0, &[]), needed),
    ]
}

/// Each mutant is found by the rule that it breaks; what finds it finds nothing where all guards are on.
pub(crate) fn caught(mutants: Vec<(M, Scenario, &str)>) {
    for (mutant, scenario, rule) in mutants {
        let whole = explore(&scenario, MOST);
        if let Some(flaw) = whole.flaw {
            panic!("without {mutant:?}: {}", flaw.text());
        }
        let scenario = Scenario { mutant: Some(mutant), ..scenario };
        let found = explore(&scenario, MOST);
        let flaw = found.flaw.unwrap_or_else(|| panic!("{mutant:?} is not caught"));
        assert_eq!(flaw.rule, rule, "{mutant:?}: {}", flaw.text());
        println!(
            "{mutant:?}: {} steps, {} of {} states: {rule}",
            flaw.trace.len(),
            found.states,
            whole.states
        );
    }
}

#[test]
fn every_mutant_is_caught() {
    caught(mutants());
}
