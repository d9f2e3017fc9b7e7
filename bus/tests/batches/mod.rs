//! Messages that are published as one batch.

use bytes::Bytes;
use tasker_bus::{Bus, Outgoing, PublishError};
use tasker_messages::subject;

use crate::Setup;
use crate::support::within;

const N: usize = 3_000;

fn messages(setup: &Setup, range: std::ops::Range<usize>) -> Vec<Outgoing> {
    range.map(|n| setup.outgoing(n)).collect()
}

async fn last_sequence(bus: &Bus) -> u64 {
    bus.stream_epoch().await.expect("an answer").expect("a stream").last_sequence
}

/// What JetStream answers to a request of its API.
async fn ask(setup: &Setup, api: &str, request: &serde_json::Value) -> serde_json::Value {
    let client = async_nats::connect(&setup.settings.nats.url).await.expect("connected");
    let payload = Bytes::from(request.to_string());
    let answer = client.request(format!("$JS.API.{api}"), payload).await.expect("an answer");
    serde_json::from_slice(&answer.payload).expect("JSON")
}

#[tokio::test]
async fn a_batch_is_stored_once_and_in_order() {
    let setup = Setup::new().await;
    setup.ensure_durable().await;
    let results = within("a batch", setup.bus.publish_batch(messages(&setup, 0..N))).await;
    assert!(results.len() == N && results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(last_sequence(&setup.bus).await, N as u64);
    setup.load_becomes((N as u64, 0)).await;
    // Some of these are there already.
    let results = within("again", setup.bus.publish_batch(messages(&setup, N - 20..N + 20))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(last_sequence(&setup.bus).await, N as u64 + 20);
    let mut puller = setup.pull(crate::brisk());
    puller.request(10).await.expect("open");
    for n in 0..10 {
        let delivery = crate::message(&mut puller).await;
        assert_eq!(delivery.payload, n.to_string().as_bytes());
        assert!(!delivery.doubtful && delivery.protocol_ok().is_ok());
    }
}

#[tokio::test]
async fn batches_at_the_same_time_do_not_mix() {
    let setup = Setup::new().await;
    let calls =
        (0..8).map(|call| setup.bus.publish_batch(messages(&setup, call * N..(call + 1) * N)));
    let results = within("all batches", futures::future::join_all(calls)).await;
    assert!(results.iter().flatten().all(Result::is_ok));
    assert_eq!(last_sequence(&setup.bus).await, 8 * N as u64);
}

#[tokio::test]
async fn a_stream_that_takes_no_batches_gets_single_messages() {
    let setup = Setup::new().await;
    let api = format!("STREAM.INFO.{}", subject::WORK_STREAM);
    let mut config = ask(&setup, &api, &serde_json::json!({})).await["config"].take();
    assert_eq!(config["allow_batched"], true);
    config["allow_batched"] = false.into();
    let api = format!("STREAM.UPDATE.{}", subject::WORK_STREAM);
    let updated = ask(&setup, &api, &config).await;
    assert!(updated["error"].is_null(), "{updated}");
    for upto in [100, 200] {
        let sent = messages(&setup, upto - 100..upto);
        let results = within("single ones", setup.bus.publish_batch(sent)).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(last_sequence(&setup.bus).await, upto as u64);
    }
    // Whoever starts next allows them again.
    setup.bus.ensure_streams(&setup.settings.streams).await.expect("streams");
    let api = format!("STREAM.INFO.{}", subject::WORK_STREAM);
    let config = ask(&setup, &api, &serde_json::json!({})).await["config"].take();
    assert_eq!(config["allow_batched"], true);
}

#[tokio::test]
async fn what_a_full_stream_refuses_is_told_by_message() {
    let setup = Setup::new().await;
    let mut small = setup.settings.streams.clone();
    small.max_bytes = 64 << 10;
    setup.bus.ensure_streams(&small).await.expect("streams");
    let results = within("a batch", setup.bus.publish_batch(messages(&setup, 0..N))).await;
    let stored = results.iter().take_while(|result| result.is_ok()).count();
    let refused =
        |result: &Result<(), PublishError>| matches!(result, Err(PublishError::Refused { .. }));
    assert!(stored > 100 && results[stored..].iter().all(refused), "{stored}: {results:?}");
    assert_eq!(last_sequence(&setup.bus).await, stored as u64);
}

#[tokio::test]
async fn a_batch_outlives_a_restart_of_the_server_and_says_that_it_was_repeated() {
    let mut setup = Setup::new().await;
    setup.ensure_durable().await;
    setup.server.tell("STOP");
    let (bus, sent) = (setup.bus.clone(), messages(&setup, 0..N));
    let server = &mut setup.server;
    let (results, ()) = tokio::join!(bus.publish_batch(sent), async {
        bus.flush().await.expect("written");
        server.end("KILL");
        server.run();
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(last_sequence(&setup.bus).await, N as u64);
    setup.load_becomes((N as u64, 0)).await;
    let mut puller = setup.pull(crate::brisk());
    puller.request(1).await.expect("open");
    assert!(crate::message_after_resets(&mut puller).await.doubtful);
}

#[tokio::test]
async fn without_a_server_nothing_is_known() {
    let mut setup = Setup::new().await;
    setup.server.end("KILL");
    let results = within("unknown", setup.bus.publish_batch(messages(&setup, 0..20))).await;
    let unknown = |r: &Result<(), PublishError>| matches!(r, Err(PublishError::Unknown));
    assert!(results.iter().all(unknown), "{results:?}");
}
