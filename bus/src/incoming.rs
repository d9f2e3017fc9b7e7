use async_nats::header::HeaderMap;
use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use tasker_messages::{PROTOCOL_VERSION, Refusal, Reply, code};

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
    let version = headers.and_then(|h| h.get_last(PROTOCOL.clone())).map(|v| v.as_str());
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    match version {
        Some(version) if version == PROTOCOL_VERSION => Ok(()),
        Some(version) if major(version) == major(PROTOCOL_VERSION) => Ok(()),
        Some(version) => {
            let shown: String = version.chars().take(20).collect();
            let message = format!(
                "the message is of protocol version {shown:?}, this process speaks \
                 {PROTOCOL_VERSION}; run the same release on both sides"
            );
            Err(Refusal::new(code::PROTOCOL_VERSION, message))
        }
        None => {
            let message = format!(
                "the header {} is missing; set it to {PROTOCOL_VERSION}",
                tasker_messages::PROTOCOL_HEADER
            );
            Err(Refusal::new(code::PROTOCOL_VERSION, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_versions() {
        let check = |version: Option<&str>, expect: bool| {
            let headers = version.map(|version| {
                let mut headers = HeaderMap::new();
                headers.insert(PROTOCOL.clone(), version);
                headers
            });
            let got = protocol_ok(headers.as_ref());
            assert_eq!(got.is_ok(), expect, "{version:?}: {got:?}");
            assert!(got.is_ok() || got.is_err_and(|r| r.code == code::PROTOCOL_VERSION));
        };
        check(Some("1"), true);
        check(Some("1.7"), true);
        check(Some("2"), false);
        check(Some("10"), false);
        check(Some(""), false);
        check(None, false);
    }

    #[test]
    fn header_names_from_outside_do_not_panic() {
        let headers = protocol_headers();
        assert_eq!(header(Some(&headers), "Tasker-Protocol"), Some(PROTOCOL_VERSION));
        assert_eq!(header(Some(&headers), "a:b\n"), None);
        assert_eq!(header(Some(&headers), ""), None);
        assert_eq!(header(None, "x"), None);
    }
}
