//! Steps that are fetched before there is a slot for them.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tasker_worker_node::WorkerNode;

use crate::delivery::Gate;
use crate::fake::{Fake, Seen, count_by_step};
use crate::server::within;

/// Steps that end at once, and those behind them that do not.
const QUICK: usize = 200;
const SLOW: usize = 100;

#[tokio::test]
async fn what_was_fetched_ahead_of_slow_steps_is_given_back() {
    let mut fake = Fake::start().await;
    fake.settings.worker.slots = 2;
    fake.open_queue().await;
    let gate = Gate::new();
    gate.open.add_permits(QUICK);
    let items: Vec<_> = (0..QUICK + SLOW).map(|_| fake.item("gate", Value::Null)).collect();
    fake.publish(&items).await;
    let worker = fake.worker(gate.registry()).await;
    // More than two slots and one queue account for: without, nothing would be given back.
    fake.until("steps given back", |seen| !seen.released.is_empty()).await;
    let ran = gate.calls.load(Ordering::SeqCst) as usize;
    assert_eq!(ran, QUICK + 2, "no more than two at a time");
    let released = {
        let seen = fake.seen();
        assert!(seen.released.iter().all(|step| step.unstarted), "{:?}", seen.released);
        seen.released.len()
    };
    assert!(released < 2 * 4, "{released}");
    // What was given back is acknowledged; two that run and one that waits are held.
    within("acknowledgements", async {
        while fake.left().await != ((SLOW - 3 - released) as u64, 3) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(fake.seen().claims.is_empty());
    gate.open.add_permits(SLOW);
    fake.until_acknowledged().await;
    let outcomes = count_by_step(&fake.seen());
    assert!(outcomes.values().all(|&n| n == 1), "each once");
    assert_eq!(outcomes.len() + released, QUICK + SLOW);
    within("the end", worker.stop()).await;
}

/// A worker that has asked to have steps taken back, and whom nobody answers.
async fn given_back_in_vain() -> (Fake, Gate, WorkerNode) {
    let mut fake = Fake::start().await;
    fake.settings.worker.slots = 2;
    fake.open_queue().await;
    fake.seen().keeps_silent = true;
    let gate = Gate::new();
    gate.open.add_permits(QUICK);
    let items: Vec<_> = (0..QUICK + SLOW).map(|_| fake.item("gate", Value::Null)).collect();
    fake.publish(&items).await;
    let worker = fake.worker(gate.registry()).await;
    fake.until("steps given back", |seen| !seen.released.is_empty()).await;
    (fake, gate, worker)
}

#[tokio::test]
async fn slots_go_on_while_nobody_takes_back_what_was_fetched_ahead() {
    let (fake, gate, worker) = given_back_in_vain().await;
    let ran = gate.calls.load(Ordering::SeqCst) as usize;
    gate.open.add_permits(1);
    // The one that asked to have the others taken back has its slot at once.
    within("the next step", async {
        while gate.calls.load(Ordering::SeqCst) as usize == ran {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let asked: HashSet<_> = {
        let mut seen = fake.seen();
        seen.keeps_silent = false;
        seen.released.drain(..).map(|step| step.step_id).collect()
    };
    // A worker that ends waits until it has been asked again.
    gate.open.add_permits(SLOW);
    within("the end", worker.stop()).await;
    let again: HashSet<_> = fake.seen().released.iter().map(|step| step.step_id).collect();
    assert!(asked.is_subset(&again), "{asked:?} {again:?}");
    within("acknowledgements", async { while fake.left().await.1 > 0 {} }).await;
}

#[tokio::test]
async fn what_is_being_given_back_is_not_claimed() {
    let (fake, gate, worker) = given_back_in_vain().await;
    gate.open.add_permits(SLOW);
    // Meanwhile the server delivers again what nobody extends any more, to the only worker. That it claims
    // nothing can only be seen by waiting for long enough.
    let asked = |seen: &Seen| -> HashSet<_> { seen.released.iter().map(|s| s.step_id).collect() };
    fake.until("the rest", |seen| count_by_step(seen).len() + asked(seen).len() == QUICK + SLOW)
        .await;
    tokio::time::sleep(Duration::from_millis(3 * fake.settings.streams.ack_wait_ms)).await;
    {
        let mut seen = fake.seen();
        let released = asked(&seen);
        assert!(seen.claims.iter().all(|claim| !released.contains(&claim.step_id)));
        assert!(seen.outcomes().all(|outcome| !released.contains(&outcome.step_id)));
        seen.keeps_silent = false;
    }
    fake.until_acknowledged().await;
    within("the end", worker.stop()).await;
}
