use std::time::Duration;

use async_nats::Subject;
use async_nats::header::HeaderMap;
use bytes::Bytes;
use tasker_messages::Refusal;

use crate::Bus;
use crate::bus::REPEATED;
use crate::incoming;

/// One delivery of a JetStream message.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub payload: Bytes,
    /// Its place in the stream.
    pub stream_sequence: u64,
    /// Its place among all deliveries of its consumer, which begins anew when that is made again.
    pub consumer_sequence: u64,
    /// How often its consumer has delivered it, this time included.
    pub num_delivered: u64,
    /// Whether `num_delivered` may be too low: the connection was lost while the message was on its way,
    /// so that the server may have been restarted and have forgotten deliveries; or it was published
    /// once more, so that there may have been an earlier message.
    pub doubtful: bool,
    /// How many messages the consumer has not delivered yet.
    pub pending: u64,
    /// When it was published, by the server's clock.
    pub published_unix_nanos: i64,
    /// How to acknowledge it.
    pub handle: AckHandle,
    subject: Subject,
    headers: Option<HeaderMap>,
}

impl Delivery {
    /// What the message was published to.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        incoming::header(self.headers.as_ref(), name)
    }

    /// Checks the protocol version.
    ///
    /// # Errors
    /// A refusal if the header is missing or names another major version.
    pub fn protocol_ok(&self) -> Result<(), Refusal> {
        incoming::protocol_ok(self.headers.as_ref())
    }

    /// Reads a message that came to a pull inbox; gives it back if it is not a delivery.
    pub(crate) fn read(
        bus: &Bus,
        message: async_nats::Message,
        doubtful: bool,
    ) -> Result<Self, Subject> {
        let Some(reply) = message.reply else { return Err(message.subject) };
        let Some(position) = Position::parse(&reply) else { return Err(reply) };
        let repeated = message.headers.as_ref().is_some_and(|h| h.get(REPEATED.clone()).is_some());
        Ok(Self {
            payload: message.payload,
            stream_sequence: position.stream_sequence,
            consumer_sequence: position.consumer_sequence,
            num_delivered: position.num_delivered,
            doubtful: doubtful || repeated,
            pending: position.pending,
            published_unix_nanos: position.published_unix_nanos,
            handle: AckHandle { bus: bus.clone(), reply },
            subject: message.subject,
            headers: message.headers,
        })
    }
}

/// Acknowledges one delivery. Outlives its payload and is cheap to clone.
///
/// All of its messages are plain publishes: a lost one means that the message comes back, which is
/// harmless. They wait only while the connection's queue is full.
#[derive(Clone)]
pub struct AckHandle {
    bus: Bus,
    reply: Subject,
}

impl AckHandle {
    /// The handle of the delivery whose messages go to this subject.
    pub fn of_reply(bus: &Bus, reply: &str) -> Self {
        Self { bus: bus.clone(), reply: reply.into() }
    }

    /// The message is done with; a work queue forgets it.
    pub async fn ack(&self) {
        self.send(Bytes::from_static(b"+ACK")).await;
    }

    /// The message is to be delivered again, after a delay of at most seconds: it counts as
    /// unacknowledged meanwhile.
    pub async fn nak(&self, delay: Duration) {
        let payload = match delay.as_nanos() {
            0 => Bytes::from_static(b"-NAK"),
            nanos => Bytes::from(format!("-NAK {{\"delay\": {nanos}}}")),
        };
        self.send(payload).await;
    }

    /// The message is still being worked on: its time starts anew.
    pub async fn in_progress(&self) {
        self.send(Bytes::from_static(b"+WPI")).await;
    }

    /// Whether this and another one are of deliveries of the same message.
    pub fn is_same_message(&self, other: &Self) -> bool {
        let place = |handle: &Self| Position::parse(&handle.reply).map(|p| p.stream_sequence);
        place(self) == place(other)
    }

    async fn send(&self, payload: Bytes) {
        if let Err(error) = self.bus.inner.client.publish(self.reply.clone(), payload).await {
            tracing::debug!(%error, "acknowledgement not sent");
        }
    }
}

impl std::fmt::Debug for AckHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AckHandle").field(&self.reply.as_str()).finish()
    }
}

/// What a reply subject says about a delivery.
#[derive(Debug, PartialEq, Eq)]
struct Position {
    num_delivered: u64,
    stream_sequence: u64,
    consumer_sequence: u64,
    published_unix_nanos: i64,
    pending: u64,
}

impl Position {
    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`
    /// (9 tokens), or the form with domain and account hash before the stream (11 tokens, and 12
    /// with a random one at the end); see the architecture decision record 15 of NATS.
    fn parse(reply: &str) -> Option<Self> {
        let mut tokens = reply.strip_prefix("$JS.ACK.")?.split('.');
        let before = match tokens.clone().count() {
            7 => 2,
            9.. => 4,
            _ => return None,
        };
        tokens.nth(before - 1)?;
        let num_delivered = tokens.next()?.parse().ok()?;
        let stream_sequence = tokens.next()?.parse().ok()?;
        let consumer_sequence = tokens.next()?.parse().ok()?;
        let published_unix_nanos = tokens.next()?.parse().ok()?;
        let pending = tokens.next()?.parse().ok()?;
        Some(Self {
            num_delivered,
            stream_sequence,
            consumer_sequence,
            published_unix_nanos,
            pending,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_subjects() {
        let expect = Some(Position {
            num_delivered: 3,
            stream_sequence: 100,
            consumer_sequence: 7,
            published_unix_nanos: 1_700_000_000_000_000_001,
            pending: 42,
        });
        let tail = "3.100.7.1700000000000000001.42";
        let check = |reply: String, expect: &Option<Position>| {
            assert_eq!(&Position::parse(&reply), expect, "{reply}");
        };
        check(format!("$JS.ACK.work.durable.{tail}"), &expect);
        check(format!("$JS.ACK.hub.hash.work.durable.{tail}"), &expect);
        check(format!("$JS.ACK._.hash.work.durable.{tail}.random"), &expect);
        check(format!("$JS.ACK._.hash.work.durable.{tail}.random.later"), &expect);
        check(format!("$JS.ACK.hash.work.durable.{tail}"), &None);
        check("$JS.ACK.work.durable.3.100.7.1700000000000000001".into(), &None);
        check("$JS.ACK.work.durable.3.x.7.1700000000000000001.42".into(), &None);
        check("$JS.ACK.".into(), &None);
        check("_INBOX.1".into(), &None);
    }
}
