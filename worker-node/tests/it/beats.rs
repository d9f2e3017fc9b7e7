//! Which steps signs of life name.

use std::collections::HashSet;

use serde_json::Value;
use tasker_messages::StepId;

use crate::delivery::Gate;
use crate::fake::{Fake, Seen};

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
