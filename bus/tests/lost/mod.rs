//! Servers that end while something is on its way.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tasker_bus::{Outgoing, Published, PullEvent, ResetReason};
use tasker_messages::subject;

use crate::support::within;
use crate::{Setup, brisk, connected, message, message_after_resets};

#[tokio::test]
async fn a_restarted_server_voids_credit_and_work_goes_on() {
    let mut setup = Setup::new().await;
    setup.ensure_durable().await;
    let mut puller = setup.pull(brisk());
    puller.request(10).await.expect("open");
    setup.publish(0..1).await;
    let first = message(&mut puller).await;
    assert_eq!(first.stream_sequence, 1);
    let epoch = setup.bus.connection().borrow().epoch;
    setup.server.end("TERM");
    let mut connection = setup.bus.connection();
    within("the end", connection.wait_for(|c| !c.connected)).await.expect("open");
    // It would be sent through an inbox that is given up when there is a server again.
    puller.request(1).await.expect("open");
    assert_eq!(puller.credit(), 9);
    setup.server.run();
    loop {
        match within("a reset", puller.next()).await {
            PullEvent::Reset(reason) => {
                assert!(matches!(reason, ResetReason::Reconnected | ResetReason::Refused));
                break;
            }
            PullEvent::Message(_) | PullEvent::CreditReturned(_) => {}
        }
    }
    assert_eq!(puller.credit(), 0);
    setup.bus.wait_connected(Duration::from_secs(10)).await.expect("reconnected");
    assert!(setup.bus.connection().borrow().epoch > epoch);
    setup.publish(1..2).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let delivery = message_after_resets(&mut puller).await;
        delivery.handle.ack().await;
        seen.push(delivery.stream_sequence);
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2]);
}

/// Whether this is in a block of a store, so that it survives `KILL`, with all that was stored before it.
/// Files may vanish meanwhile.
fn is_written(folder: &Path, what: &[u8]) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            return is_written(&path, what);
        }
        let is_block = path.extension().is_some_and(|extension| extension == "blk");
        let block = if is_block { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
        block.windows(what.len()).any(|window| window == what)
    })
}

#[tokio::test]
async fn what_is_published_once_more_is_doubtful() {
    let mut setup = Setup::new().await;
    setup.ensure_durable().await;
    let mut puller = setup.pull(brisk());
    puller.request(1).await.expect("open");
    setup.publish(0..1).await;
    let first = message(&mut puller).await;
    assert!(!first.doubtful);
    first.handle.ack().await;
    setup.load_becomes((0, 0)).await;
    // It would forget the end of its stream otherwise, and give the same sequences again, which the consumer
    // takes for delivered.
    let kept = Outgoing {
        subject: subject::work(&"another".parse().expect("a name"), &setup.queue),
        message_id: "kept".to_owned(),
        payload: Bytes::from_static(b"to the end"),
    };
    assert!(setup.bus.publish_jetstream(vec![kept]).await[0].is_ok());
    within("it is written", async {
        while !is_written(&setup.server.folder, b"to the end") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // It is killed with what it has not read.
    setup.server.tell("STOP");
    let (bus, server) = (setup.bus.clone(), &mut setup.server);
    let lost = Outgoing {
        subject: subject::work(&setup.namespace, &setup.queue),
        message_id: "m1".to_owned(),
        payload: Bytes::from_static(b"1"),
    };
    let (published, ()) = tokio::join!(bus.publish_jetstream(vec![lost]), async {
        bus.flush().await.expect("written");
        server.end("KILL");
        server.run();
    });
    assert!(published[0].is_ok(), "{published:?}");
    // Why: the id of what was acknowledged before the restart is not known any more.
    let again = setup.bus.publish_jetstream(vec![setup.outgoing(0)]).await;
    assert!(matches!(again[0], Ok(Published { duplicate: false, .. })), "{again:?}");
    puller.request(1).await.expect("open");
    assert_eq!(puller.credit(), 0, "what is asked for through an inbox that is given up gets lost");
    for doubtful in [true, false] {
        let delivery = message_after_resets(&mut puller).await;
        assert_eq!((delivery.doubtful, delivery.num_delivered), (doubtful, 1));
    }
}

#[tokio::test]
async fn a_question_that_was_lost_is_asked_again() {
    let mut setup = Setup::new().await;
    setup.settings.nats.request_timeout_ms = 600_000;
    let bus = connected(&setup.settings).await;
    setup.ensure_durable().await;
    // It is killed with what it has not read.
    setup.server.tell("STOP");
    let (settings, server) = (&setup.settings.streams, &mut setup.server);
    let (namespace, queue) = (&setup.namespace, &setup.queue);
    // Boxed: futures of the client are large.
    let asked = Box::pin(async {
        tokio::join!(
            bus.consumer_load(namespace, queue),
            bus.ensure_streams(settings),
            bus.ask_each_connection(|| bus.ensure_work_durable(namespace, queue, None, settings)),
        )
    });
    let killed = async {
        bus.flush().await.expect("written");
        server.end("KILL");
        server.run();
    };
    let ((load, streams, durable), ()) =
        within("answers", async { tokio::join!(asked, killed) }).await;
    assert!(load.is_ok_and(|load| load.is_some()));
    assert!(streams.is_ok() && durable.is_ok(), "{streams:?} {durable:?}");
}
