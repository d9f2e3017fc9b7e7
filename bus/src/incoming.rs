use async_nats::header::HeaderMap;
use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use tasker_messages::{Refusal, Reply, check_protocol, code, subject};

use crate::Bus;
use crate::bus::{PROTOCOL, encode, protocol_headers};

/// Messages of one subject or wildcard.
pub struct Subscription {
    bus: Bus,
    subscriber: async_nats::Subscriber,
}

impl Subscription {
    pub(crate) fn new(bus: Bus, subscriber: async_nats::Subscriber) -> Self {
        Self { bus, subscriber }
    }

    /// Asks the server for no more. What has arrived meanwhile comes from [`Self::next`], and then `None`.
    pub async fn drain(&mut self) {
        if let Err(error) = self.subscriber.drain().await {
            tracing::debug!(%error, "the connection is closed");
        }
    }

    /// The next message; `None` when the connection is closed for good. Safe to cancel.
    pub async fn next(&mut self) -> Option<Incoming> {
        let message = self.subscriber.next().await?;
        Some(Incoming {
            subject: message.subject.into_string(),
            payload: message.payload,
            headers: message.headers,
            reply: message.reply,
            bus: self.bus.clone(),
        })
    }
}

/// A message or request from another process.
pub struct Incoming {
    /// What it was sent to.
    pub subject: String,
    /// Its content.
    pub payload: Bytes,
    headers: Option<HeaderMap>,
    reply: Option<async_nats::Subject>,
    bus: Bus,
}

impl Incoming {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.headers.as_ref(), name)
    }

    /// Checks the protocol version.
    ///
    /// # Errors
    /// A refusal for the sender if the header is missing or names another major version.
    pub fn protocol_ok(&self) -> Result<(), Refusal> {
        protocol_ok(self.headers.as_ref())
    }

    /// Whether the sender waits for an answer.
    pub fn wants_answer(&self) -> bool {
        self.reply.is_some()
    }

    /// Answers the sender, if it waits. An answer that cannot be sent is logged: the sender will
    /// ask again.
    pub async fn answer<T: Serialize>(&self, answer: Result<T, Refusal>) {
        let Some(reply) = self.reply.clone() else { return };
        if !subject::takes_answers(&reply) {
            let (subject, reply) = (self.subject.as_str(), reply.as_str());
            tracing::warn!(subject, reply, "not answered: the answer would not go to an inbox");
            return;
        }
        let payload = match encode(&self.subject, &Reply::from(answer)) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(subject = self.subject, %error, "answer not sent");
                return;
            }
        };
        let bytes = payload.len();
        let client = &self.bus.inner.client;
        let sent = client.publish_with_headers(reply.clone(), protocol_headers(), payload).await;
        let Err(error) = sent else { return };
        tracing::error!(subject = self.subject, %error, bytes, "answer not sent");
        // Too large for the bus: the sender must learn it, or it would ask for ever.
        let refusal =
            Refusal::new(code::TOO_LARGE, format!("the answer has {bytes} bytes: {error}"));
        if let Ok(payload) = encode(&self.subject, &Reply::<()>::Error(refusal)) {
            let _closed = client.publish_with_headers(reply, protocol_headers(), payload).await;
        }
    }
}

pub(crate) fn header<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    // A lookup by `&str` panics on names that no header can have.
    let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    headers.filter(|_| valid)?.get_last(name).map(|value| value.as_str())
}

pub(crate) fn protocol_ok(headers: Option<&HeaderMap>) -> Result<(), Refusal> {
    check_protocol(headers.and_then(|h| h.get_last(PROTOCOL.clone())).map(|v| v.as_str()))
}

#[cfg(test)]
mod tests {
    use tasker_messages::PROTOCOL_VERSION;

    use super::*;

    #[test]
    fn header_names_from_outside_do_not_panic() {
        let headers = protocol_headers();
        assert_eq!(header(Some(&headers), "Tasker-Protocol"), Some(PROTOCOL_VERSION));
        assert_eq!(header(Some(&headers), "a:b\n"), None);
        assert_eq!(header(Some(&headers), ""), None);
        assert_eq!(header(None, "x"), None);
    }
}
