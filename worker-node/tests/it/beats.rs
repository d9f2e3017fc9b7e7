//! Which steps signs of life name.

use std::collections::HashSet;

use serde_json::Value;
use tasker_messages::StepId;

use crate::delivery::Gate;
use crate::fake::{Fake, Seen};
use crate::server::within;

fn named(seen: &Seen) -> HashSet<StepId> {
    seen.beats.iter().flat_map(|beat| &beat.running).map(|step| step.step_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_a_worker_holds_is_named() {
    const MORE_THAN_ONE_BEAT_LISTS: u32 = 1_100;
    let mut fake = Fake::start().await;
    fake.settings.worker.slots = MORE_THAN_ONE_BEAT_LISTS;
    fake.open_queue().await;
    let gate = Gate::new();
    let worker = fake.worker(gate.registry()).await;
    let items: Vec<_> =
        (0..MORE_THAN_ONE_BEAT_LISTS).map(|_| fake.item("gate", Value::Null)).collect();
    fake.publish(&items).await;
    let held: HashSet<StepId> = items.iter().map(|item| item.step_id).collect();
    fake.until("beats that name all", |seen| named(seen) == held).await;
    gate.open.add_permits(items.len());
    fake.until_acknowledged().await;
    worker.stop().await;
}

/// A worker that dies of the first step that it gets has been heard of: what is delivered again is charged.
#[tokio::test]
async fn a_worker_is_heard_of_before_it_asks_for_work() {
    let mut fake = Fake::start().await;
    fake.settings.worker.heartbeat_ms = 3_600_000;
    fake.open_queue().await;
    let gate = Gate::new();
    fake.publish(&[fake.item("gate", Value::Null)]).await;
    let worker = fake.worker(gate.registry()).await;
    gate.called(1).await;
    fake.until("a beat", |seen| !seen.beats.is_empty()).await;
    let beat = fake.seen().beats[0].clone();
    assert!(beat.queues.len() == 1 && beat.queues[0].busy == 0 && !beat.draining, "{beat:?}");
    gate.open.add_permits(1);
    within("the end", worker.stop()).await;
}
