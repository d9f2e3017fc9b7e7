//! Steps that come with the answer to a report, without a message.

use serde_json::json;
use tasker_messages::{NextStep, WorkItem};

use crate::delivery::Gate;
use crate::fake::{Fake, count_by_step, ending};
use crate::handlers::registry;
use crate::server::within;

/// Answers the first report that takes a step with this one.
fn hand_once(fake: &Fake, item: &WorkItem) {
    let mut item = Some(item.clone());
    fake.seen().hand = Box::new(move |_, takes| match takes {
        0 => Vec::new(),
        _ => item.take().map(|item| NextStep { after: 0, item }).into_iter().collect(),
    });
}

#[tokio::test]
async fn a_handed_step_is_run_and_reported() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let worker = fake.worker(registry()).await;
    let (first, second) = (fake.item("echo", json!(1)), fake.item("echo", json!(2)));
    hand_once(&fake, &second);
    fake.publish(std::slice::from_ref(&first)).await;
    fake.until("both outcomes", |seen| seen.outcome(second.step_id).is_some()).await;
    fake.until_acknowledged().await;
    let outcome = fake.seen().outcome(second.step_id).cloned().expect("reported");
    assert_eq!((ending(&outcome), outcome.attempt), (Ok(json!(2)), 1));
    assert_eq!(fake.seen().takes, [1, 1], "one outcome, one step, while slots are free");
    assert!(fake.seen().claims.is_empty());
    within("the end", worker.stop()).await;
    assert!(fake.seen().released.is_empty());
}

#[tokio::test]
async fn the_sweeps_copy_of_a_handed_step_does_not_run_it_twice() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let gate = Gate::new();
    let worker = fake.worker(gate.registry()).await;
    let (first, second) = (fake.item("gate", json!(1)), fake.item("gate", json!(2)));
    hand_once(&fake, &second);
    fake.publish(std::slice::from_ref(&first)).await;
    gate.called(1).await;
    gate.open.add_permits(1);
    gate.called(2).await;
    // The lease ended and it was published, while it runs here: the message belongs to the run.
    let copy = WorkItem { claim_required: true, ..second.clone() };
    fake.publish(&[copy]).await;
    within("the delivery", async {
        while fake.left().await != (0, 1) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.open.add_permits(1);
    fake.until_acknowledged().await;
    assert_eq!(count_by_step(&fake.seen())[&second.step_id], 1);
    within("the end", worker.stop()).await;
}

#[tokio::test]
async fn a_draining_worker_takes_nothing_and_gives_back_what_comes_all_the_same() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let worker = fake.worker(registry()).await;
    fake.answer_reports(false);
    let (first, second) = (fake.item("echo", json!(1)), fake.item("echo", json!(2)));
    hand_once(&fake, &second);
    fake.publish(std::slice::from_ref(&first)).await;
    fake.until("a report that waits", |seen| seen.open == 1).await;
    let stopping = tokio::spawn(worker.stop());
    fake.until("a draining beat", |seen| seen.beats.iter().any(|beat| beat.draining)).await;
    fake.answer_reports(true);
    within("the end", stopping).await.expect("no panic");
    let seen = fake.seen();
    let released: Vec<_> = seen.released.iter().map(|s| (s.step_id, s.dispatch_seq)).collect();
    assert_eq!(released, [(second.step_id, 1)]);
    assert_eq!(count_by_step(&seen).len(), 1, "it was not run");
}
