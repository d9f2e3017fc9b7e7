//! The bus against a real nats-server.

mod batches;
mod lost;
mod support;
mod tls;
mod users;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use support::{TestServer, within};
use tasker_bus::{
    Bus, BusError, Delivery, Outgoing, PublishError, PullEvent, PullOptions, Puller, RequestError,
    ResetReason,
};
use tasker_config::Settings;
use tasker_messages::{Namespace, Queue, Refusal, code, subject};

async fn connected(settings: &Settings) -> Bus {
    let bus = Bus::connect(&settings.nats, "test").await.expect("an address");
    bus.wait_connected(Duration::from_secs(10)).await.expect("connected");
    bus
}

struct Setup {
    server: TestServer,
    settings: Settings,
    bus: Bus,
    namespace: Namespace,
    queue: Queue,
}

impl Setup {
    async fn new() -> Self {
        let server = TestServer::start();
        let mut settings = server.settings();
        settings.streams.ack_wait_ms = 2_000;
        settings.nats.request_timeout_ms = 2_000;
        let bus = connected(&settings).await;
        let [namespace, queue] = ["test", "default"];
        let (namespace, queue) = (namespace.parse().expect("valid"), queue.parse().expect("valid"));
        let setup = Self { server, settings, bus, namespace, queue };
        setup.bus.ensure_streams(&setup.settings.streams).await.expect("streams");
        setup
    }

    async fn ensure_durable(&self) {
        self.limit(None).await;
    }

    async fn limit(&self, max_running: Option<u32>) {
        let settings = &self.settings.streams;
        let ensured =
            self.bus.ensure_work_durable(&self.namespace, &self.queue, max_running, settings);
        ensured.await.expect("a durable");
    }

    fn outgoing(&self, n: usize) -> Outgoing {
        Outgoing {
            subject: subject::work(&self.namespace, &self.queue),
            message_id: format!("m{n}"),
            payload: Bytes::from(n.to_string()),
        }
    }

    async fn publish(&self, range: std::ops::Range<usize>) {
        let results = self.bus.publish_jetstream(range.map(|n| self.outgoing(n)).collect()).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    fn pull(&self, options: PullOptions) -> Puller {
        let durable = subject::work_durable(&self.namespace, &self.queue);
        self.bus.pull(subject::WORK_STREAM, &durable, options)
    }

    async fn load(&self) -> (u64, u64) {
        let load = self.bus.consumer_load(&self.namespace, &self.queue).await.expect("an answer");
        load.map_or((0, 0), |load| (load.pending, load.ack_pending))
    }

    /// Waits until so many messages are to be delivered, and so many deliveries to be acknowledged: the server
    /// tells its consumers of what it stores after it has said that it is stored.
    async fn load_becomes(&self, expect: (u64, u64)) {
        let until = Instant::now() + Duration::from_secs(10);
        let mut load = self.load().await;
        while load != expect && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
            load = self.load().await;
        }
        assert_eq!(load, expect, "to be delivered, to be acknowledged");
    }
}

fn brisk() -> PullOptions {
    PullOptions { expires: Duration::from_secs(30), idle_heartbeat: Duration::from_millis(500) }
}

async fn message(puller: &mut Puller) -> Delivery {
    match within("a message", puller.next()).await {
        PullEvent::Message(delivery) => delivery,
        other => panic!("expected a message, got {other:?}"),
    }
}

/// Asks until messages arrive, as a consumer does after a reset.
async fn message_after_resets(puller: &mut Puller) -> Delivery {
    within("a message after resets", async {
        loop {
            if puller.credit() == 0 {
                puller.request(1).await.expect("open");
            }
            match puller.next().await {
                PullEvent::Message(delivery) => return delivery,
                PullEvent::CreditReturned(_) => {}
                PullEvent::Reset(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await
}

async fn nothing_for(puller: &mut Puller, time: Duration) {
    if let Ok(event) = tokio::time::timeout(time, puller.next()).await {
        panic!("expected nothing, got {event:?}");
    }
}

#[tokio::test]
async fn pulls_exactly_what_was_asked_for() {
    let setup = Setup::new().await;
    setup.ensure_durable().await;
    setup.publish(0..20).await;
    setup.load_becomes((20, 0)).await;
    let mut puller = setup.pull(brisk());
    puller.request(3).await.expect("open");
    puller.request(4).await.expect("open");
    assert_eq!(puller.credit(), 7);
    for n in 0..7_u64 {
        let delivery = message(&mut puller).await;
        assert_eq!(delivery.payload, n.to_string());
        assert_eq!((delivery.num_delivered, delivery.stream_sequence), (1, n + 1));
        assert_eq!(delivery.pending, 19 - n);
        assert!(delivery.published_unix_nanos > 0 && delivery.protocol_ok().is_ok());
        assert_eq!(delivery.header("Nats-Msg-Id"), Some(format!("m{n}").as_str()));
        delivery.handle.ack().await;
    }
    assert_eq!(puller.credit(), 0);
    nothing_for(&mut puller, Duration::from_millis(300)).await;
    setup.load_becomes((13, 0)).await;
}

#[tokio::test]
async fn no_more_is_delivered_than_a_queue_may_have_out() {
    let mut setup = Setup::new().await;
    // Nothing of this comes back.
    setup.settings.streams.ack_wait_ms = 60_000;
    setup.limit(Some(2)).await;
    setup.publish(0..9).await;
    let mut puller = setup.pull(brisk());
    puller.request(9).await.expect("open");
    let (first, _second) = (message(&mut puller).await, message(&mut puller).await);
    // Who waits for what may not come yet is not taken for one who was forgotten.
    nothing_for(&mut puller, Duration::from_millis(1_500)).await;
    first.handle.ack().await;
    message(&mut puller).await;
    nothing_for(&mut puller, Duration::from_millis(300)).await;
    // Another limit holds at once, also for requests that wait.
    setup.limit(Some(4)).await;
    for _ in 0..2 {
        message(&mut puller).await;
    }
    nothing_for(&mut puller, Duration::from_millis(300)).await;
    setup.load_becomes((4, 4)).await;
    setup.limit(Some(1)).await;
    let load = setup.bus.consumer_load(&setup.namespace, &setup.queue).await.expect("an answer");
    assert_eq!(load.map(|load| load.max_ack_pending), Some(1));
    setup.limit(None).await;
    for _ in 0..4 {
        message(&mut puller).await;
    }
    setup.load_becomes((0, 8)).await;
}

/// A message that comes without anybody waking the server.
async fn soon(puller: &mut Puller) -> Delivery {
    let limit = Duration::from_secs(3);
    tokio::time::timeout(limit, message(puller)).await.expect("it has waited long enough")
}

#[tokio::test]
async fn a_queue_without_a_share_delivers_nothing() {
    let mut setup = Setup::new().await;
    // Nothing of this comes back.
    setup.settings.streams.ack_wait_ms = 60_000;
    let streams = setup.settings.streams.clone();
    let (bus, namespace, queue) = (&setup.bus, &setup.namespace, &setup.queue);
    let ensure = async || {
        bus.ensure_sharing_durable(namespace, queue, &streams).await.expect("a durable");
    };
    let share = async |n| bus.give_share(namespace, queue, n, &streams).await.expect("given");
    let found = async || {
        let load = bus.consumer_load(namespace, queue).await.expect("an answer").expect("there");
        (load.is_paused(), load.max_ack_pending, load.pending, load.ack_pending)
    };
    ensure().await;
    setup.publish(0..9).await;
    // Nothing that this side does wakes the server.
    let slow =
        PullOptions { expires: Duration::from_secs(60), idle_heartbeat: Duration::from_secs(25) };
    let mut puller = setup.pull(slow);
    puller.request(9).await.expect("open");
    nothing_for(&mut puller, Duration::from_millis(1_500)).await;
    assert_eq!(found().await, (true, 1, 9, 0));
    share(2).await;
    let (first, second) = (soon(&mut puller).await, soon(&mut puller).await);
    nothing_for(&mut puller, Duration::from_millis(300)).await;
    assert_eq!(found().await, (false, 2, 7, 2));
    // It loses its share: what it has out goes on, nothing follows. To ensure it changes nothing.
    share(0).await;
    ensure().await;
    first.handle.ack().await;
    second.handle.ack().await;
    nothing_for(&mut puller, Duration::from_millis(600)).await;
    assert_eq!(found().await, (true, 1, 7, 0));
    // Said again before its minute is over.
    share(0).await;
    nothing_for(&mut puller, Duration::from_millis(300)).await;
    share(1).await;
    let third = soon(&mut puller).await;
    nothing_for(&mut puller, Duration::from_millis(300)).await;
    share(0).await;
    third.handle.ack().await;
    nothing_for(&mut puller, Duration::from_millis(300)).await;
    // Without a limit it is like any other again.
    setup.ensure_durable().await;
    for _ in 0..6 {
        soon(&mut puller).await;
    }
    assert_eq!(found().await, (false, streams.max_ack_pending, 0, 6));
}

#[tokio::test]
async fn a_nak_redelivers_and_progress_extends() {
    let setup = Setup::new().await;
    setup.ensure_durable().await;
    setup.publish(0..2).await;
    let mut puller = setup.pull(brisk());
    puller.request(3).await.expect("open");
    let (first, second) = (message(&mut puller).await, message(&mut puller).await);
    first.handle.nak(Duration::from_millis(100)).await;
    let again = message(&mut puller).await;
    assert_eq!((again.num_delivered, again.stream_sequence), (2, first.stream_sequence));
    // The second is kept alive for longer than `ack_wait`; nothing comes back.
    puller.request(1).await.expect("open");
    for _ in 0..6 {
        second.handle.in_progress().await;
        again.handle.in_progress().await;
        nothing_for(&mut puller, Duration::from_millis(500)).await;
    }
    // Then it is forgotten and comes back.
    again.handle.ack().await;
    let back = message(&mut puller).await;
    assert_eq!((back.num_delivered, back.stream_sequence), (2, second.stream_sequence));
    back.handle.ack().await;
}

#[tokio::test]
async fn expired_credit_comes_back() {
    let setup = Setup::new().await;
    setup.ensure_durable().await;
    setup.publish(0..1).await;
    let expires = Duration::from_secs(1);
    let mut puller = setup.pull(PullOptions { expires, ..brisk() });
    puller.request(5).await.expect("open");
    let _delivery = message(&mut puller).await;
    let event = within("expiry", puller.next()).await;
    assert!(matches!(event, PullEvent::CreditReturned(4)), "{event:?}");
    assert_eq!(puller.credit(), 0);
}

#[tokio::test]
async fn a_missing_or_deleted_consumer_is_told() {
    let setup = Setup::new().await;
    let mut puller = setup.pull(brisk());
    puller.request(1).await.expect("open");
    let event = within("no consumer", puller.next()).await;
    assert!(matches!(event, PullEvent::Reset(ResetReason::NoConsumer)), "{event:?}");
    setup.ensure_durable().await;
    puller.request(1).await.expect("open");
    nothing_for(&mut puller, Duration::from_millis(200)).await;
    setup.bus.delete_work_durable(&setup.namespace, &setup.queue).await.expect("deleted");
    let event = within("deleted consumer", puller.next()).await;
    assert!(matches!(event, PullEvent::Reset(ResetReason::NoConsumer)), "{event:?}");
    let load = setup.bus.consumer_load(&setup.namespace, &setup.queue).await.expect("an answer");
    assert_eq!(load, None);
    setup.ensure_durable().await;
    setup.publish(0..1).await;
    assert_eq!(message_after_resets(&mut puller).await.num_delivered, 1);
}

#[tokio::test]
async fn many_publishes_are_acknowledged_in_order() {
    let setup = Setup::new().await;
    setup.ensure_durable().await;
    let messages = (0..10_000).map(|n| setup.outgoing(n)).collect();
    let results = within("acknowledgements", setup.bus.publish_jetstream(messages)).await;
    for (n, result) in results.iter().enumerate() {
        let published = result.as_ref().expect("stored");
        assert_eq!((published.sequence, published.duplicate), (n as u64 + 1, false));
    }
    setup.load_becomes((10_000, 0)).await;
    let again = setup.bus.publish_jetstream(vec![setup.outgoing(7), setup.outgoing(10_000)]).await;
    let again: Vec<_> = again.into_iter().map(|r| r.expect("an answer")).collect();
    assert_eq!((again[0].sequence, again[0].duplicate), (8, true));
    assert_eq!((again[1].sequence, again[1].duplicate), (10_001, false));
}

#[tokio::test]
async fn calls_that_publish_at_the_same_time_do_not_wait_for_each_other() {
    let setup = Setup::new().await;
    let calls = (0..10).map(|call| {
        let messages = (0..3_000).map(|n| setup.outgoing(call * 3_000 + n)).collect();
        setup.bus.publish_jetstream(messages)
    });
    let results = within("all calls", futures::future::join_all(calls)).await;
    assert!(results.iter().flatten().all(Result::is_ok));
    let epoch = setup.bus.stream_epoch().await.expect("an answer").expect("a stream");
    assert_eq!(epoch.last_sequence, 30_000);
}

#[tokio::test]
async fn publishes_without_stream_or_server() {
    let mut setup = Setup::new().await;
    let nowhere = Outgoing { subject: "nowhere".into(), ..setup.outgoing(0) };
    let odd = Outgoing { message_id: "a\r\nb".into(), ..setup.outgoing(0) };
    let large = Outgoing { payload: vec![0; 9 << 20].into(), ..setup.outgoing(5) };
    let messages = vec![nowhere, setup.outgoing(1), odd, large];
    let results = setup.bus.publish_jetstream(messages).await;
    assert!(matches!(results[3], Err(PublishError::Bus(BusError::TooLarge { .. }))), "{results:?}");
    assert!(matches!(results[0], Err(PublishError::NoStream)), "{results:?}");
    assert!(matches!(results[1], Ok(published) if published.sequence == 1), "{results:?}");
    assert!(matches!(results[2], Err(PublishError::Bus(_))), "{results:?}");
    setup.server.end("KILL");
    let results = within("unknown", setup.bus.publish_jetstream(vec![setup.outgoing(2)])).await;
    assert!(matches!(results[0], Err(PublishError::Unknown)), "{results:?}");
    // Acknowledgements that were lost with a connection are found by publishing again.
    setup.server.run();
    within("reconnect", setup.bus.wait_connected(Duration::from_secs(20)))
        .await
        .expect("connected");
    setup.publish(2..4).await;
}

#[tokio::test]
async fn what_is_confirmed_has_arrived() {
    let mut setup = Setup::new().await;
    let listener = Bus::connect(&setup.settings.nats, "listener").await.expect("an address");
    listener.wait_connected(Duration::from_secs(10)).await.expect("connected");
    let mut heard = listener.subscribe("domain.>", None).await.expect("a subscription");
    listener.publish_confirmed(&[]).await.expect("the server has the subscription");
    let to = |n: usize| Outgoing { subject: format!("domain.{n}"), ..setup.outgoing(n) };
    let large = Outgoing { payload: vec![0; 9 << 20].into(), ..to(1) };
    let refused = setup.bus.publish_confirmed(&[to(0), large, to(2)]).await.expect("confirmed");
    assert!(matches!(refused[..], [(1, BusError::TooLarge { .. })]), "{refused:?}");
    for n in [0, 2] {
        let message = within("a message", heard.next()).await.expect("open");
        assert_eq!(message.subject, format!("domain.{n}"));
        assert_eq!(message.header("Nats-Msg-Id"), Some(format!("m{n}").as_str()));
        assert!(message.protocol_ok().is_ok());
    }
    let messages = [to(3)];
    setup.server.end("KILL");
    let lost = within("an error", setup.bus.publish_confirmed(&messages)).await;
    assert!(matches!(lost, Err(BusError::TimedOut(_) | BusError::Send { .. })), "{lost:?}");
}

#[tokio::test]
async fn streams_are_created_once_and_queues_are_found() {
    let setup = Setup::new().await;
    let first = setup.bus.ensure_streams(&setup.settings.streams).await.expect("streams");
    setup.ensure_durable().await;
    setup.ensure_durable().await;
    setup.publish(0..3).await;
    let mut other = setup.settings.streams.clone();
    other.max_bytes /= 2;
    let second = setup.bus.ensure_streams(&other).await.expect("streams");
    assert_eq!(first.created_unix_nanos, second.created_unix_nanos);
    assert_eq!(second.last_sequence, 3);
    let queues = setup.bus.work_durables().await.expect("an answer");
    assert_eq!(queues, [(setup.namespace.clone(), setup.queue.clone())]);
    setup.server.wipe();
}

#[tokio::test]
async fn durables_that_exist_are_not_created_again_and_lost_ones_are() {
    let setup = Setup::new().await;
    let spy = async_nats::connect(&setup.settings.nats.url).await.expect("connected");
    let mut created = spy.subscribe("$JS.API.CONSUMER.CREATE.>").await.expect("subscribed");
    let jetstream = async_nats::jetstream::new(spy);
    // The server answers when it has subscribed; and below when it has sent on what came before.
    let stream = jetstream.get_stream(subject::CONTROL_STREAM).await.expect("a stream");
    for _ in 0..3 {
        setup.bus.ensure_streams(&setup.settings.streams).await.expect("streams");
    }
    stream.delete_consumer(subject::BATCH_DURABLE).await.expect("deleted");
    setup.bus.ensure_streams(&setup.settings.streams).await.expect("streams");
    let again = stream.consumer_info(subject::BATCH_DURABLE).await;
    assert!(again.is_ok(), "{again:?}");
    let mut asked = Vec::new();
    while let Some(Some(request)) = created.next().now_or_never() {
        asked.push(request.subject.to_string());
    }
    let durable = |stream, durable| format!("$JS.API.CONSUMER.CREATE.{stream}.{durable}.");
    let both = [
        durable(subject::CONTROL_STREAM, subject::BATCH_DURABLE),
        durable(subject::SUBMIT_STREAM, subject::SUBMIT_DURABLE),
    ];
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().zip(&both).all(|(a, b)| a.starts_with(b.as_str())), "{asked:?}");
    setup.server.wipe();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_puller_that_is_closed_has_all_that_was_sent() {
    const MESSAGES: usize = 4_000;
    let mut setup = Setup::new().await;
    // What was sent and nobody got would come back after that, when the test is long over.
    setup.settings.streams.ack_wait_ms = 600_000;
    setup.ensure_durable().await;
    setup.publish(0..MESSAGES).await;
    let mut received = 0;
    while received < MESSAGES {
        let mut puller = setup.pull(brisk());
        puller.request(150).await.expect("open");
        let mut delivery = message(&mut puller).await;
        puller.close().await;
        loop {
            // Also those that the server had picked for the puller before: it notices that they did not go
            // out, and gives them to the next one at once.
            delivery.handle.ack().await;
            received += 1;
            delivery = match within("the end", puller.next()).await {
                PullEvent::Message(delivery) => delivery,
                PullEvent::Reset(reason) => break assert_eq!(reason, ResetReason::Refused),
                PullEvent::CreditReturned(n) => panic!("nothing expires so soon: {n}"),
            };
        }
    }
    assert_eq!(received, MESSAGES, "some came twice");
    setup.server.wipe();
}

#[tokio::test]
async fn moments_by_the_clock_of_the_server() {
    let setup = Setup::new().await;
    setup.ensure_durable().await;
    let before = Instant::now();
    setup.publish(0..1).await;
    let after = Instant::now();
    let mut puller = setup.pull(brisk());
    puller.request(1).await.expect("open");
    let published = message(&mut puller).await.published_unix_nanos;
    let at = |moment| setup.bus.server_unix_nanos(moment).expect("the streams were looked at");
    // It may be behind by the time that an answer took.
    assert!(at(before) <= published, "{} {published}", at(before));
    assert!(at(after) > published - 2_000_000_000, "{} {published}", at(after));
    setup.server.wipe();
}

#[tokio::test]
async fn requests() {
    let setup = Setup::new().await;
    let ask = |subject: &str| {
        let (bus, subject) = (setup.bus.clone(), subject.to_owned());
        async move { bus.request::<u32, u32>(subject, &20, Duration::from_millis(500)).await }
    };
    let nobody = ask("test.nobody").await;
    assert!(matches!(nobody, Err(RequestError::NoResponders { .. })), "{nobody:?}");
    let mut incoming = setup.bus.subscribe("test.*", Some("group")).await.expect("open");
    let answering = tokio::spawn(async move {
        while let Some(message) = incoming.next().await {
            assert!(message.wants_answer() && message.protocol_ok().is_ok());
            let n: u32 = serde_json::from_slice(&message.payload).expect("a number");
            match message.subject.as_str() {
                "test.double" => message.answer(Ok(n * 2)).await,
                "test.text" => message.answer(Ok("text")).await,
                "test.large" => message.answer(Ok("x".repeat(9 << 20))).await,
                "test.no" => {
                    message.answer::<u32>(Err(Refusal::retry(code::UNAVAILABLE, "later"))).await;
                }
                "test.header" => {
                    assert_eq!(message.header("Key"), Some("value"));
                    message.answer(Ok(n)).await;
                }
                _ => {}
            }
        }
    });
    setup.bus.flush().await.expect("flushed");
    assert_eq!(ask("test.double").await.expect("an answer"), 40);
    let refused = ask("test.no").await.expect_err("refused");
    assert!(refused.is_retryable() && matches!(refused, RequestError::Refused(_)), "{refused}");
    let text = ask("test.text").await;
    assert!(matches!(text, Err(RequestError::Malformed { .. })), "{text:?}");
    let silent = ask("test.silent").await;
    assert!(matches!(silent, Err(RequestError::TimedOut { .. })), "{silent:?}");
    let large = ask("test.large").await;
    assert!(
        matches!(&large, Err(RequestError::Refused(r)) if r.code == code::TOO_LARGE),
        "{large:?}"
    );
    let raw = |value: &'static str| {
        let headers = [("Key", value)];
        let bus = setup.bus.clone();
        async move {
            let payload = Bytes::from_static(b"1");
            bus.request_raw::<u32>("test.header".into(), &headers, payload, Duration::from_secs(5))
                .await
        }
    };
    assert_eq!(raw("value").await.expect("an answer"), 1);
    assert!(matches!(raw("a\r\nb").await, Err(RequestError::Bus(_))));
    setup.bus.drain().await.expect("drained");
    within("the end", answering).await.expect("no panic");
}
