//! Redelivery, claims, progress, cancelled tasks, unreadable messages, restarts of the server.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tasker_bus::{Outgoing, PullEvent, PullOptions};
use tasker_messages::{
    ClaimVerdict, DropReason, Hint, Queue, Refusal, StepId, WorkItem, code, subject,
};
use tasker_sdk::{HandlerRegistry, StepContext, StepError, StepResult};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::fake::{Fake, count_by_step, ending};
use crate::server::within;

/// A handler that ends when it is told to, and counts its calls.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) calls: Arc<AtomicU32>,
    pub(crate) open: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { calls: Arc::default(), open: Arc::new(Semaphore::new(0)) }
    }

    pub(crate) fn registry(&self) -> HandlerRegistry {
        let gate = self.clone();
        HandlerRegistry::new().register("gate", move |ctx: StepContext| {
            let gate = gate.clone();
            async move {
                gate.calls.fetch_add(1, Ordering::SeqCst);
                tokio::select! {
                    permit = gate.open.acquire() => permit.expect("open").forget(),
                    () = ctx.cancelled_wait() => {}
                }
                Ok::<StepResult, StepError>(json!(ctx.cancelled()).into())
            }
        })
    }

    pub(crate) async fn called(&self, times: u32) {
        within("calls", async {
            while self.calls.load(Ordering::SeqCst) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn long_steps_are_kept_alive_and_named() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let gate = Gate::new();
    let worker = fake.worker(gate.registry()).await;
    let item = fake.item("gate", Value::Null);
    fake.publish(std::slice::from_ref(&item)).await;
    let step = item.step_id;
    gate.called(1).await;
    // Over three times `ack_wait`, in beats.
    let beats =
        (3 * fake.settings.streams.ack_wait_ms / fake.settings.worker.heartbeat_ms) as usize;
    fake.until("beats that name the step", |seen| {
        let running = |s: &tasker_messages::RunningStep| s.step_id == step && s.attempt == 1;
        seen.beats.iter().filter(|beat| beat.running.iter().any(running)).count() > beats
    })
    .await;
    assert_eq!((gate.calls.load(Ordering::SeqCst), fake.left().await), (1, (0, 1)));
    gate.open.add_permits(1);
    fake.until("an outcome", |seen| seen.outcome(step).is_some()).await;
    fake.until_acknowledged().await;
    let beat = fake.seen().beats.last().cloned().expect("a beat");
    assert_eq!((beat.name.as_str(), beat.queues[0].slots), ("test worker", 8));
    assert_eq!(beat.callables, ["gate"]);
    assert!(fake.seen().claims.is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn a_redelivery_to_the_worker_that_runs_the_step_keeps_the_run() {
    let mut fake = Fake::start().await;
    fake.settings.worker.progress_ms = 3_600_000;
    fake.open_queue().await;
    let gate = Gate::new();
    let worker = fake.worker(gate.registry()).await;
    let item = fake.item("gate", Value::Null);
    fake.publish(std::slice::from_ref(&item)).await;
    gate.called(1).await;
    // The same step again, as the reconciler sends it.
    let again = WorkItem { dispatch_seq: 2, claim_required: true, ..item.clone() };
    fake.publish(&[again]).await;
    tokio::time::sleep(Duration::from_millis(2 * fake.settings.streams.ack_wait_ms)).await;
    // The message came back meanwhile, and the worker went on with what it ran.
    assert!(fake.seen().claims.is_empty());
    assert_eq!(fake.left().await, (0, 1));
    // It may come back once more between the verdict and its acknowledgement.
    fake.seen().grant = Box::new(|_| ClaimVerdict::Drop(DropReason::Ended));
    gate.open.add_permits(1);
    fake.until("an outcome", |seen| seen.outcome(item.step_id).is_some()).await;
    fake.until_acknowledged().await;
    assert_eq!(gate.calls.load(Ordering::SeqCst), 1);
    worker.stop().await;
    let seen = fake.seen();
    let outcome = seen.outcome(item.step_id).expect("reported");
    assert_eq!((outcome.attempt, outcome.dispatch_seq), (1, 2));
}

#[tokio::test]
async fn redelivered_and_marked_messages_are_claimed() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let items: Vec<_> = (0..4).map(|n| fake.item("echo", json!(n))).collect();
    let mut marked = fake.item("echo", json!(4));
    marked.claim_required = true;
    // Published by somebody who was stopped for longer than the server remembers ids.
    let mut late = fake.item("echo", json!(5));
    late.fresh_until_ms = Some(0);
    let mut fresh = fake.item("echo", json!(6));
    fresh.fresh_until_ms = Some(i64::MAX);
    fake.publish(&items).await;
    // A worker that vanishes with them.
    let durable = subject::work_durable(&fake.namespace, &fake.queue);
    let mut puller = fake.bus.pull(subject::WORK_STREAM, &durable, PullOptions::default());
    puller.request(4).await.expect("open");
    for _ in 0..4 {
        let event = within("a message", puller.next()).await;
        assert!(matches!(event, PullEvent::Message(_)), "{event:?}");
    }
    drop(puller);
    fake.publish(&[marked.clone(), late.clone(), fresh.clone()]).await;
    let verdicts: HashMap<StepId, ClaimVerdict> = HashMap::from([
        (items[0].step_id, ClaimVerdict::Run { attempt: 7, tries: 2 }),
        (items[1].step_id, ClaimVerdict::Held),
        (items[2].step_id, ClaimVerdict::Drop(DropReason::Ended)),
        (items[3].step_id, ClaimVerdict::Run { attempt: 2, tries: 1 }),
        (marked.step_id, ClaimVerdict::Run { attempt: 1, tries: 0 }),
        (late.step_id, ClaimVerdict::Run { attempt: 3, tries: 0 }),
    ]);
    fake.seen().grant = Box::new(move |claim| verdicts[&claim.step_id]);
    let worker = fake.worker(super::handlers::registry()).await;
    let expected = [(&items[0], 7), (&items[3], 2), (&marked, 1), (&late, 3)];
    fake.until("the fresh one", |seen| seen.outcome(fresh.step_id).is_some()).await;
    fake.until("outcomes", |seen| {
        expected.iter().all(|(item, _)| seen.outcome(item.step_id).is_some())
    })
    .await;
    for (item, attempt) in expected {
        let seen = fake.seen();
        assert_eq!(seen.outcome(item.step_id).map(|o| o.attempt), Some(attempt));
        let claim = seen.claims.iter().find(|c| c.step_id == item.step_id).expect("claimed");
        assert_eq!(claim.redelivered, ![marked.step_id, late.step_id].contains(&item.step_id));
    }
    assert!(fake.seen().claims.iter().all(|claim| claim.step_id != fresh.step_id));
    // The one that is held by another comes back, is claimed again, and never reported.
    fake.until("the held one again", |seen| {
        seen.claims.iter().filter(|c| c.step_id == items[1].step_id).count() >= 2
    })
    .await;
    assert_eq!(fake.left().await, (0, 1));
    let counts = count_by_step(&fake.seen());
    assert!(!counts.contains_key(&items[1].step_id) && !counts.contains_key(&items[2].step_id));
    worker.stop().await;
}

#[tokio::test]
async fn of_two_copies_at_one_worker_neither_comes_back() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let gate = Gate::new();
    let worker = fake.worker(gate.registry()).await;
    let item = fake.item("gate", Value::Null);
    fake.publish(std::slice::from_ref(&item)).await;
    gate.called(1).await;
    let copy = WorkItem { claim_required: true, ..item.clone() };
    fake.publish_as(&[copy], |_| "another id".to_owned()).await;
    // The copy is held in the place of the first one.
    fake.until_acknowledged_up_to(1).await;
    assert_eq!(fake.left().await, (0, 1));
    gate.open.add_permits(1);
    fake.until_acknowledged().await;
    assert_eq!(gate.calls.load(Ordering::SeqCst), 1);
    {
        let seen = fake.seen();
        assert!(seen.claims.is_empty() && seen.outcomes().count() == 1);
    }
    worker.stop().await;
}

#[tokio::test]
async fn claims_say_until_when_they_are_of_use() {
    let mut fake = Fake::start().await;
    fake.settings.nats.request_timeout_ms = 300;
    fake.open_queue().await;
    let asked = fake.bus.server_unix_nanos(Instant::now()).expect("known") / 1_000_000;
    let refusal = Refusal::retry(code::UNAVAILABLE, "the claim came too late; claim again");
    fake.seen().turn_away = VecDeque::from([None, Some(refusal), None]);
    let worker = fake.worker(super::handlers::registry()).await;
    let item = WorkItem { claim_required: true, ..fake.item("echo", json!(1)) };
    fake.publish(std::slice::from_ref(&item)).await;
    fake.until("an outcome", |seen| seen.outcome(item.step_id).is_some()).await;
    let until = fake.seen().until.clone();
    // After a refusal it does not say so once: a clock may be wrong.
    let [Some(first), Some(second), None, Some(last)] = until[..] else { panic!("{until:?}") };
    assert!(asked < first && first + 300 <= second && second + 300 <= last, "{asked} {until:?}");
    let now = fake.bus.server_unix_nanos(Instant::now()).expect("known") / 1_000_000;
    assert!(last < now + 2_000, "{until:?} {now}");
    fake.until_acknowledged().await;
    worker.stop().await;
}

#[tokio::test]
async fn cancelled_tasks_stop_and_do_not_start() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let gate = Gate::new();
    let worker = fake.worker(gate.registry()).await;
    let running = fake.item("gate", Value::Null);
    fake.publish(std::slice::from_ref(&running)).await;
    gate.called(1).await;
    let hint = Hint::TaskCancelled(running.task_id);
    fake.bus.publish(subject::hint(&"other".parse().expect("valid")), &hint).await.expect("open");
    fake.bus.publish(subject::hint(&fake.namespace), &hint).await.expect("open");
    fake.until("an outcome", |seen| seen.outcome(running.step_id).is_some()).await;
    let got = fake.seen().outcome(running.step_id).map(ending);
    assert_eq!(got, Some(Ok(json!(true))));
    let later = WorkItem { task_id: running.task_id, ..fake.item("gate", Value::Null) };
    fake.publish(&[later]).await;
    fake.until_acknowledged().await;
    assert_eq!(gate.calls.load(Ordering::SeqCst), 1);
    worker.stop().await;
}

#[tokio::test]
async fn unreadable_messages_do_not_stop_the_queue() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let worker = fake.worker(super::handlers::registry()).await;
    let garbage = [&b"{"[..], b"", b"[]", b"{\"t\": 1}", b"\xff\xff"];
    let messages = garbage.iter().enumerate().map(|(n, payload)| Outgoing {
        subject: subject::work(&fake.namespace, &fake.queue),
        message_id: format!("garbage {n}"),
        payload: Bytes::from_static(payload),
    });
    for result in fake.bus.publish_jetstream(messages.collect()).await {
        result.expect("stored");
    }
    let item = fake.item("echo", json!(1));
    let mut bad_range = fake.item("echo", json!(1));
    bad_range.cursor = serde_json::value::RawValue::from_string("[1]".into()).ok();
    fake.publish(&[item.clone(), bad_range.clone()]).await;
    fake.until("outcomes", |seen| seen.outcomes().count() >= 2).await;
    fake.until_acknowledged().await;
    worker.stop().await;
    let seen = fake.seen();
    assert_eq!(seen.outcome(item.step_id).map(ending), Some(Ok(json!(1))));
    let code = tasker_messages::code::INVALID_VALUE.to_owned();
    assert_eq!(seen.outcome(bad_range.step_id).map(ending), Some(Err(code)));
}

#[tokio::test]
async fn a_queue_that_comes_later_is_found() {
    let mut fake = Fake::start().await;
    fake.settings.worker.namespaces = vec!["test".into()];
    let worker = fake.worker(super::handlers::registry()).await;
    // The worker pulls in vain for a while.
    fake.until("a beat", |seen| !seen.beats.is_empty()).await;
    fake.open_queue().await;
    let item = fake.item("echo", json!(1));
    fake.publish(std::slice::from_ref(&item)).await;
    fake.until("an outcome", |seen| seen.outcome(item.step_id).is_some()).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_server_older_messages_are_claimed() {
    let mut fake = Fake::start().await;
    fake.settings.worker.slots = 1;
    fake.open_queue().await;
    let gate = Gate::new();
    let worker = fake.worker(gate.registry()).await;
    let old: Vec<_> = (0..5).map(|_| fake.item("gate", Value::Null)).collect();
    fake.publish(&old).await;
    gate.called(1).await;
    let claimed = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&claimed);
    fake.seen().grant = Box::new(move |claim| {
        list.lock().expect("no panic").push(claim.step_id);
        ClaimVerdict::Run { attempt: 2, tries: 0 }
    });
    fake.server.end("KILL");
    fake.server.run();
    fake.bus.wait_connected(Duration::from_secs(20)).await.expect("reconnected");
    gate.open.add_permits(5);
    fake.until("old outcomes", |seen| count_by_step(seen).len() == old.len()).await;
    let new: Vec<_> = (0..5).map(|_| fake.item("gate", Value::Null)).collect();
    fake.publish(&new).await;
    gate.open.add_permits(15);
    fake.until("new outcomes", |seen| count_by_step(seen).len() == old.len() + new.len()).await;
    fake.until_acknowledged().await;
    worker.stop().await;
    let claimed = claimed.lock().expect("no panic");
    let runs_first = fake.seen().outcomes().next().map(|o| o.step_id);
    for item in &old {
        let expect = runs_first != Some(item.step_id);
        assert!(!expect || claimed.contains(&item.step_id), "{} was not claimed", item.step_id);
    }
    assert!(new.iter().all(|item| !claimed.contains(&item.step_id)));
}

/// Whoever may ask JetStream something names the subject of the answer, also one of work.
#[tokio::test]
async fn answers_of_jetstream_do_not_block_a_queue() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let durable = subject::work_durable(&fake.namespace, &fake.queue);
    let work = subject::work(&fake.namespace, &fake.queue);
    let forged = format!("PUB $JS.API.CONSUMER.INFO.TASKER_WORK.{durable} {work} 2\r\n{{}}\r\n");
    let mut stream = TcpStream::connect(("127.0.0.1", fake.server.port)).await.expect("a server");
    stream
        .write_all(format!("CONNECT {{\"verbose\":false}}\r\n{forged}").as_bytes())
        .await
        .expect("open");
    within("the answer on the stream", async {
        while fake.left().await.0 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let gate = Gate::new();
    let worker = fake.worker(gate.registry()).await;
    fake.until_acknowledged().await;
    assert_eq!(gate.calls.load(Ordering::SeqCst), 0);
    worker.stop().await;
}

#[tokio::test]
async fn what_nobody_can_hear_of_is_said_with_the_request_for_queues() {
    let mut fake = Fake::start().await;
    fake.settings.worker.queues = vec!["default".into(), "gpu".into()];
    fake.open_queue().await;
    let worker = fake.worker(super::handlers::registry()).await;
    fake.until("a second request", |seen| seen.introductions.len() > 1).await;
    let said: Vec<_> = {
        let seen = fake.seen();
        let said = seen.introductions.iter().take(2).flatten();
        said.map(|said| (said.worker, said.queues.clone(), said.callables.clone())).collect()
    };
    let queue = |name: &str| Queue::new(name).expect("a name");
    // The queue that exists is pulled by then, and heard of by heartbeats.
    assert_eq!(said[0].1, [queue("default"), queue("gpu")]);
    assert_eq!(said[1].1, [queue("gpu")]);
    fake.until("a beat", |seen| !seen.beats.is_empty()).await;
    let beat = fake.seen().beats[0].clone();
    assert!(said.iter().all(|said| said.0 == beat.worker && said.2 == beat.callables));
    worker.stop().await;
}
