//! The users of the shipped configuration: what each of them needs works, and nothing else.

mod forbidden;
mod raw;

use std::time::Duration;

use bytes::Bytes;
use raw::Raw;
use tasker_bus::{Bus, Outgoing, PullEvent, PullOptions, server_users, users};
use tasker_config::Secret;
use tasker_messages::subject::{self, Request};
use tasker_messages::{Namespace, Queue, Refusal, TaskId};

use crate::support::{TestServer, within};

fn namespace(name: &str) -> Namespace {
    name.parse().expect("a valid name")
}

fn queue() -> Queue {
    "default".parse().expect("a valid name")
}

/// Two tenants, `csv` and `pay`, who share a server.
fn start() -> TestServer {
    let users = users(&[namespace("csv"), namespace("pay")], &[queue()]);
    let passwords: String = users
        .iter()
        .map(|user| format!("{}: \"of {}\"\n", user.password_variable, user.name))
        .collect();
    TestServer::start_with(&format!("{passwords}{}", server_users(&users)))
}

async fn connect(server: &TestServer, user: &str) -> Bus {
    let mut settings = server.settings().nats;
    settings.user = user.to_owned();
    settings.password = Secret::new(format!("of {user}"));
    settings.request_timeout_ms = 2_000;
    let bus = Bus::connect(&settings, "a name").await.expect("valid settings");
    bus.wait_connected(Duration::from_secs(10)).await.expect("let in");
    bus
}

fn raw(server: &TestServer, user: &str) -> Raw {
    Raw::connect(server.port, user, &format!("of {user}")).expect("let in")
}

#[test]
fn the_shipped_users_are_those_of_the_code() {
    let shipped = include_str!("../../../config/nats/users.conf");
    assert!(
        shipped == server_users(&users(&[], &[])),
        "write it anew: cargo run -p tasker -- bus users > config/nats/users.conf"
    );
}

#[test]
fn strangers_are_not_let_in() {
    let server = start();
    for (user, password) in [("", ""), ("worker-csv", "of worker-pay"), ("nobody", "of nobody")] {
        let refusal = Raw::connect(server.port, user, password).err();
        assert!(refusal.is_some_and(|r| r.contains("Authorization Violation")), "{user}");
    }
}

#[test]
fn forbidden_acts_are_refused() {
    let server = start();
    for (user, acts) in forbidden::ACTS {
        let mut raw = raw(&server, user);
        for (verb, subject) in acts
            .iter()
            .flat_map(|(verb, subjects)| subjects.iter().map(move |subject| (*verb, *subject)))
        {
            let refusal = match verb {
                "publish" => raw.publish(subject, "", "{}"),
                _ => raw.subscribe(subject),
            };
            let expected = refusal.as_deref().is_some_and(|r| r.contains("Permissions Violation"));
            assert!(expected, "{user} may {verb} {subject}: {refusal:?}");
        }
    }
}

/// All that an orchestrator and a worker do with streams and consumers.
#[tokio::test]
async fn work_travels_under_the_users() {
    let server = start();
    let (orchestrator, worker) =
        (connect(&server, "orchestrator").await, connect(&server, "worker-csv").await);
    let (csv, queue, streams) = (namespace("csv"), queue(), server.settings().streams);
    orchestrator.ensure_streams(&streams).await.expect("streams");
    let mut other_limits = streams.clone();
    other_limits.duplicate_window_ms += 1_000;
    orchestrator.ensure_streams(&other_limits).await.expect("adapted");
    orchestrator.ensure_work_durable(&csv, &queue, Some(7), &streams).await.expect("a durable");
    orchestrator.give_share(&csv, &queue, 0, &streams).await.expect("held back");
    orchestrator.give_share(&csv, &queue, 5, &streams).await.expect("goes on");
    assert_eq!(orchestrator.work_durables().await.expect("listed"), [(csv.clone(), queue.clone())]);

    let durable = subject::work_durable(&csv, &queue);
    let mut puller = worker.pull(subject::WORK_STREAM, &durable, PullOptions::default());
    puller.request(2).await.expect("open");
    let item = |n: u32| Outgoing {
        subject: subject::work(&csv, &queue),
        message_id: format!("m{n}"),
        payload: Bytes::from_static(b"{}"),
    };
    let stored = orchestrator.publish_jetstream(vec![item(1)]).await;
    assert!(stored[0].is_ok(), "{stored:?}");
    let mut delivery = None;
    for _ in 0..2 {
        match within("a delivery", puller.next()).await {
            PullEvent::Message(message) => {
                message.handle.in_progress().await;
                match delivery {
                    None => message.handle.nak(Duration::ZERO).await,
                    Some(_) => message.handle.ack().await,
                }
                delivery = Some(message.num_delivered);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(delivery, Some(2));
    let load = worker.consumer_load(&csv, &queue).await.expect("answered").expect("there");
    assert_eq!((load.pending, load.max_ack_pending), (0, 5));
    within("the acknowledgement", async {
        while worker
            .consumer_load(&csv, &queue)
            .await
            .expect("answered")
            .is_some_and(|l| l.ack_pending > 0)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(worker.stream_epoch().await.expect("answered").is_some());
    orchestrator.delete_work_durable(&csv, &queue).await.expect("deleted");
}

/// The streams that orchestrators read: their own commands, and what is submitted without waiting.
#[tokio::test]
async fn commands_travel_under_the_users() {
    let server = start();
    let (orchestrator, submitter) =
        (connect(&server, "orchestrator").await, connect(&server, "submitter-csv").await);
    orchestrator.ensure_streams(&server.settings().streams).await.expect("streams");
    let csv = namespace("csv");
    for (sender, stream, durable, subject) in [
        (
            &orchestrator,
            subject::CONTROL_STREAM,
            subject::BATCH_DURABLE,
            subject::control_batch(&csv),
        ),
        (&submitter, subject::SUBMIT_STREAM, subject::SUBMIT_DURABLE, subject::enqueue(&csv)),
    ] {
        let mut puller = orchestrator.pull(stream, durable, PullOptions::default());
        puller.request(1).await.expect("open");
        let sent = Outgoing { subject, message_id: "m".into(), payload: Bytes::from_static(b"{}") };
        let stored = sender.publish_jetstream(vec![sent]).await;
        assert!(stored[0].is_ok(), "{stored:?}");
        let PullEvent::Message(message) = within("a command", puller.next()).await else {
            panic!("not pulled from {stream}");
        };
        message.handle.ack().await;
    }
}

#[tokio::test]
async fn questions_are_answered_under_the_users() {
    let server = start();
    let orchestrator = connect(&server, "orchestrator").await;
    let mut answering = Vec::new();
    for &request in Request::ALL {
        let subject = request.wildcard();
        let mut asked =
            orchestrator.subscribe(&subject, Some(subject::ORCHESTRATORS)).await.expect("open");
        answering.push(tokio::spawn(async move {
            while let Some(incoming) = asked.next().await {
                incoming.answer(Ok::<_, Refusal>(incoming.subject.clone())).await;
            }
        }));
    }
    orchestrator.publish_confirmed(&[]).await.expect("confirmed");
    let (worker, submitter) =
        (connect(&server, "worker-csv").await, connect(&server, "submitter-csv").await);
    let csv = namespace("csv");
    for &request in Request::ALL {
        let asker = match request {
            Request::Submit | Request::TaskGet | Request::TaskWait => &submitter,
            _ => &worker,
        };
        let subject = request.subject(&csv);
        let answer =
            asker.request::<_, String>(subject.clone(), &(), Duration::from_secs(10)).await;
        assert_eq!(answer.expect("answered"), subject);
    }

    // A plan goes the other way, and its answer not to the orchestrator's own inbox.
    let mut plans = worker
        .subscribe(&subject::plan(&csv, &queue()), Some(subject::PLANNERS))
        .await
        .expect("open");
    // The server answers after it has seen the subscription.
    worker.stream_epoch().await.expect("answered");
    answering.push(tokio::spawn(async move {
        while let Some(incoming) = plans.next().await {
            incoming.answer(Ok::<_, Refusal>("planned")).await;
        }
    }));
    let planned = orchestrator.request_with_reply_to::<_, String>(
        subject::plan(&csv, &queue()),
        subject::planned(&csv, 1),
        &(),
        Duration::from_secs(10),
    );
    assert_eq!(planned.await.expect("answered"), "planned");
    answering.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn news_travel_under_the_users() {
    let server = start();
    let csv = namespace("csv");
    let (orchestrator, worker) =
        (connect(&server, "orchestrator").await, connect(&server, "worker-csv").await);
    let (submitter, monitor) =
        (connect(&server, "submitter-csv").await, connect(&server, "monitor").await);
    let event = subject::task_event(&csv, TaskId::from_uuid(uuid::Uuid::from_u128(7)));
    let domain = subject::domain_event(&csv, &"done".parse().expect("a name"));
    for (from, to, listens, subject) in [
        (&worker, &orchestrator, subject::BEATS, subject::beat(&csv)),
        (&worker, &monitor, subject::BEATS, subject::beat(&csv)),
        (&orchestrator, &worker, "tasker.hint.csv", subject::hint(&csv)),
        (&orchestrator, &worker, subject::QUEUES_CHANGED, subject::QUEUES_CHANGED.to_owned()),
        (&orchestrator, &orchestrator, subject::TASK_EVENTS, event.clone()),
        (&orchestrator, &monitor, subject::TASK_EVENTS, event.clone()),
        (&orchestrator, &submitter, event.as_str(), event.clone()),
    ] {
        let mut news = to.subscribe(listens, None).await.expect("open");
        let heard = within(&subject, async {
            loop {
                // What is sent before the server has seen the subscription is not heard.
                from.publish(subject.clone(), &()).await.expect("open");
                let heard = tokio::time::timeout(Duration::from_millis(50), news.next());
                if let Ok(incoming) = heard.await {
                    return incoming.expect("open").subject;
                }
            }
        });
        assert_eq!(heard.await, subject);
    }
    let mut news = submitter.subscribe("tasker.event.csv.domain.>", None).await.expect("open");
    let event = Outgoing { subject: domain.clone(), message_id: "1".into(), payload: Bytes::new() };
    let heard = within(&domain, async {
        loop {
            let event = std::slice::from_ref(&event);
            let refused = orchestrator.publish_confirmed(event).await.expect("confirmed");
            assert!(refused.is_empty(), "{refused:?}");
            let heard = tokio::time::timeout(Duration::from_millis(50), news.next());
            if let Ok(incoming) = heard.await {
                return incoming.expect("open").subject;
            }
        }
    });
    assert_eq!(heard.await, domain);
}

/// Whoever asks names the subject of the answer: it must not become a message that the asker may not send.
#[tokio::test]
async fn answers_do_not_become_orders() {
    let server = start();
    let orchestrator = connect(&server, "orchestrator").await;
    orchestrator.ensure_streams(&server.settings().streams).await.expect("streams");
    let mut asked = orchestrator.subscribe(&Request::Claim.wildcard(), None).await.expect("open");
    orchestrator.publish_confirmed(&[]).await.expect("confirmed");
    let mut worker = raw(&server, "worker-csv");
    for reply in ["tasker.work.pay.default", "$JS.API.STREAM.DELETE.TASKER_WORK"] {
        assert_eq!(worker.publish("tasker.step.claim.csv", reply, "{}"), None);
        let incoming = within("a request", asked.next()).await.expect("open");
        assert!(incoming.wants_answer());
        incoming.answer(Ok::<_, Refusal>("forged")).await;
    }
    // What the server took from this connection before would stand before it on the stream.
    let item = Outgoing {
        subject: subject::work(&namespace("pay"), &queue()),
        message_id: "m".into(),
        payload: Bytes::from_static(b"{}"),
    };
    let stored = orchestrator.publish_jetstream(vec![item]).await;
    assert!(matches!(&stored[0], Ok(stored) if stored.sequence == 1), "{stored:?}");
}
