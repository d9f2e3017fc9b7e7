//! The orderly end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tasker_bus::{PullEvent, PullOptions};
use tasker_messages::{Hint, WorkerId, subject};
use tasker_worker_node::WorkerNode;
use uuid::Uuid;

use crate::delivery::Gate;
use crate::fake::Fake;
use crate::server::within;

#[tokio::test]
async fn what_runs_may_finish_and_the_rest_is_given_back() {
    let mut fake = Fake::start().await;
    fake.settings.worker.slots = 2;
    fake.settings.worker.drain_ms = 2_000;
    fake.open_queue().await;
    let gate = Gate::new();
    let worker = fake.worker(gate.registry()).await;
    let items: Vec<_> = (0..6).map(|_| fake.item("gate", Value::Null)).collect();
    fake.publish(&items).await;
    gate.called(2).await;
    let stopping = tokio::spawn(worker.stop());
    fake.until("a draining beat", |seen| seen.beats.iter().any(|beat| beat.draining)).await;
    // One of the two finishes in time, the other one never.
    gate.open.add_permits(1);
    within("the end", stopping).await.expect("no panic");
    assert_eq!(gate.calls.load(Ordering::SeqCst), 2, "nothing new was started");
    let released = {
        let seen = fake.seen();
        assert_eq!(seen.outcomes().count(), 1);
        let done = seen.outcomes().next().map(|o| o.step_id).expect("one");
        assert!(seen.released.iter().all(|step| step.step_id != done));
        seen.released.len() as u64
    };
    assert!((1..=3).contains(&released), "two slots and one queue: {released}");
    // Everything that the worker had is acknowledged: reported or given back.
    within("acknowledgements", async {
        while fake.left().await != (5 - released, 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_asked_to_drain_finishes_what_runs_and_stays() {
    let mut fake = Fake::start().await;
    fake.settings.worker.slots = 2;
    // Nobody is in a hurry: what runs has all the time it needs.
    fake.settings.worker.drain_ms = 1;
    fake.open_queue().await;
    let gate = Gate::new();
    let worker = fake.worker(gate.registry()).await;
    let items: Vec<_> = (0..6).map(|_| fake.item("gate", Value::Null)).collect();
    fake.publish(&items).await;
    gate.called(2).await;
    fake.until("a beat", |seen| !seen.beats.is_empty()).await;
    let id = fake.seen().beats[0].worker;
    let hint = async |worker| {
        let hint = Hint::DrainWorker(worker);
        fake.bus.publish(subject::hint(&fake.namespace), &hint).await.expect("open");
    };
    // Another worker is meant, then this one, twice.
    for worker in [WorkerId::from_uuid(Uuid::now_v7()), id, id] {
        hint(worker).await;
    }
    fake.until("a draining beat", |seen| seen.beats.iter().any(|b| b.draining && !b.drained)).await;
    let beats = fake.seen().beats.len();
    fake.until("more beats", |seen| seen.beats.len() >= beats + 3).await;
    assert!(fake.seen().beats.iter().all(|beat| !beat.drained), "two steps run");
    gate.open.add_permits(2);
    fake.until("a drained beat", |seen| seen.beats.iter().any(|b| b.draining && b.drained)).await;
    within("the end of its work", worker.drained()).await;
    let released = fake.seen().released.clone();
    assert!(released.iter().all(|step| step.unstarted && step.attempt == 1), "{released:?}");
    assert_eq!(fake.seen().outcomes().count(), 2);
    // What it had is acknowledged, and it takes nothing of what comes.
    fake.publish(&[fake.item("gate", Value::Null)]).await;
    let beats = fake.seen().beats.len();
    fake.until("more beats", |seen| seen.beats.len() >= beats + 3).await;
    assert_eq!(fake.left().await, (5 - released.len() as u64, 0));
    assert_eq!(gate.calls.load(Ordering::SeqCst), 2);
    within("the end", worker.stop()).await;
}

#[tokio::test]
async fn an_idle_worker_stops_at_once_also_without_a_server() {
    let mut fake = Fake::start().await;
    fake.open_queue().await;
    let gate = Gate::new();
    let worker = fake.worker(gate.registry()).await;
    fake.until("a beat", |seen| !seen.beats.is_empty()).await;
    within("the end", worker.stop()).await;
    let worker = fake.worker(gate.registry()).await;
    fake.server.end("KILL");
    within("the end without a server", worker.stop()).await;
    let worker = fake.worker(gate.registry()).await;
    within("the end before there is a server", worker.stop()).await;
}

/// A message that the server picks for a worker which does not take it counts as delivered all the same, so
/// that the next worker would have to claim it.
#[tokio::test]
async fn what_comes_while_a_worker_ends_is_taken_or_left_alone() {
    let mut fake = Fake::start().await;
    fake.settings.worker.slots = 200;
    fake.open_queue().await;
    let durable = subject::work_durable(&fake.namespace, &fake.queue);
    for _ in 0..10 {
        let worker = fake.worker(crate::handlers::registry()).await;
        let first = fake.item("echo", Value::Null);
        fake.publish(std::slice::from_ref(&first)).await;
        fake.until("it pulls", |seen| seen.outcome(first.step_id).is_some()).await;
        let items: Vec<_> = (0..1_000).map(|_| fake.item("echo", Value::Null)).collect();
        tokio::join!(fake.publish(&items), worker.stop());
        let mut puller = fake.bus.pull(subject::WORK_STREAM, &durable, PullOptions::default());
        puller.request(1_000).await.expect("open");
        while fake.left().await != (0, 0) {
            let event = tokio::time::timeout(Duration::from_millis(100), puller.next()).await;
            if let Ok(PullEvent::Message(delivery)) = event {
                assert_eq!(delivery.num_delivered, 1, "it went to nobody before");
                delivery.handle.ack().await;
            }
        }
    }
}

#[tokio::test]
async fn unusable_settings_are_named() {
    let settings = tasker_config::Loader::new().and_then(|l| l.load()).expect("valid").settings;
    let check = |change: fn(&mut tasker_config::Settings), expect: &'static str| {
        let mut settings = settings.clone();
        change(&mut settings);
        async move {
            let registry = tasker_sdk::HandlerRegistry::new();
            let error = WorkerNode::start(settings, registry, "x").await.err().expect("unusable");
            assert!(error.to_string().contains(expect), "{error}");
        }
    };
    check(|s| s.worker.slots = 0, "worker.slots").await;
    check(|s| s.worker.namespaces = vec!["A".into()], "worker.namespaces").await;
    check(|s| s.worker.queues = vec![], "worker.queues").await;
    check(|s| s.worker.queues = vec!["a.b".into()], "worker.queues").await;
    check(|s| s.nats.url = "nats://:::".into(), "nats.url").await;
    check(|s| s.nats.url = "nats://192.0.2.1".into(), "nats.require_tls").await;
    check(|s| s.nats.user = "worker".into(), "nats.password").await;
}
