//! Many messages with few acknowledgements: fast-ingest batches of nats-server 2.14 and later, see the
//! architecture decision record 50 of NATS.
//!
//! The reply subject of each message says which batch it is of and where it stands in it. The server
//! acknowledges every so many of them, and the whole when the last has come; it goes on as long as nothing
//! is missing or refused. What was stored before is dropped by its message id, as of single messages.

use async_nats::{Message, StatusCode, Subscriber};
use futures::StreamExt;
use serde::Deserialize;
use tokio::time::Instant;

use crate::publish::headers_of;
use crate::{Bus, BusError, Outgoing, PublishError};

/// Fewer messages are published one by one: a batch has two acknowledgements of its own.
const FEWEST: usize = 16;
/// Messages for each acknowledgement, at most.
const STEP: usize = 256;
/// Messages that may be on their way without one.
const WINDOW: usize = 4 * STEP;

/// Where acknowledgements of one batch at a time arrive, below `<prefix>.`.
pub(crate) struct BatchInbox {
    subscriber: Subscriber,
    prefix: String,
    /// Makes the names of its batches: the server knows them by these, from whomever they come.
    name: String,
    batches: u64,
}

impl Bus {
    /// Publishes messages to one stream and waits until all are stored; results are in the order of the
    /// messages. Where the server takes batches, they go as one; what becomes of one that it does not
    /// confirm as a whole is not known, and its messages are published once more under the same ids, as by
    /// [`Bus::publish_jetstream`].
    pub async fn publish_batch(&self, messages: Vec<Outgoing>) -> Vec<Result<(), PublishError>> {
        let may_batch = messages.len() >= FEWEST && self.inner.publishers.takes_batches();
        if may_batch && self.batch(&messages).await {
            return messages.iter().map(|_| Ok(())).collect();
        }
        let results = self.publish_each(messages, may_batch).await;
        results.into_iter().map(|result| result.map(|_| ())).collect()
    }

    /// Whether all messages are stored now; if not, any of them may be.
    async fn batch(&self, messages: &[Outgoing]) -> bool {
        let publishers = &self.inner.publishers;
        let _call = publishers.calls.acquire().await;
        let idle = publishers.idle_batches.lock().await.pop();
        let inbox = match idle {
            Some(inbox) => Ok(inbox),
            None => self.batch_inbox().await,
        };
        let mut inbox = match inbox {
            Ok(inbox) => inbox,
            Err(error) => {
                tracing::error!(%error, "cannot publish");
                return false;
            }
        };
        inbox.batches += 1;
        let mut batch =
            Batch { bus: self, name: format!("{}-{}", inbox.name, inbox.batches), inbox };
        let ended = batch.publish(messages).await;
        if let Err(cause) = &ended {
            metrics::counter!("tasker_bus_broken_batches_total").increment(1);
            tracing::debug!(?cause, messages = messages.len(), "a batch is published once more");
            if matches!(cause, Broken::Unsupported) {
                publishers.set_takes_batches(false);
            }
        }
        publishers.idle_batches.lock().await.push(batch.inbox);
        ended.is_ok()
    }

    async fn batch_inbox(&self) -> Result<BatchInbox, BusError> {
        let prefix = self.inner.client.new_inbox();
        let subject = format!("{prefix}.>");
        let subscriber = self.inner.client.subscribe(subject.clone()).await;
        let subscriber = subscriber.map_err(|e| BusError::send(subject, e))?;
        let name = prefix.rsplit('.').next().unwrap_or_default().to_owned();
        Ok(BatchInbox { subscriber, prefix, name, batches: 0 })
    }
}

/// Why a batch was not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// The stream does not take batches.
    Unsupported,
    /// A message was refused or lost on the way, so that those behind it are not stored.
    Refused,
    /// Nothing was heard within the request timeout.
    Silence,
    /// The connection was lost, and with it perhaps messages or answers.
    Disconnected,
}

/// One batch.
struct Batch<'a> {
    bus: &'a Bus,
    name: String,
    inbox: BatchInbox,
}

impl Batch<'_> {
    async fn publish(&mut self, messages: &[Outgoing]) -> Result<(), Broken> {
        let mut connection = self.bus.connection();
        let epoch = connection.borrow_and_update().epoch;
        let timeout = self.bus.request_timeout();
        let (mut sent, mut stored) = (0, 0);
        let mut deadline = Instant::now() + timeout;
        loop {
            if sent < messages.len() && sent - stored < WINDOW {
                let send = self.send(&messages[sent], sent, messages.len());
                match tokio::time::timeout(timeout, send).await {
                    Ok(Ok(())) => sent += 1,
                    Ok(Err(_)) => return Err(Broken::Refused),
                    Err(_) => return Err(Broken::Silence),
                }
                continue;
            }
            tokio::select! {
                biased;
                answer = self.inbox.subscriber.next() => {
                    let Some(answer) = answer else { return Err(Broken::Disconnected) };
                    deadline = Instant::now() + timeout;
                    match read(&answer, &self.name) {
                        Answer::OfAnother => {}
                        Answer::Stored(n) => stored = stored.max(n),
                        Answer::Ended(n) if n == messages.len() => return Ok(()),
                        Answer::Ended(_) => return Err(Broken::Refused),
                        Answer::Broken(cause) => return Err(cause),
                    }
                }
                () = tokio::time::sleep_until(deadline) => return Err(Broken::Silence),
                changed = connection.wait_for(|c| c.epoch != epoch) => {
                    let _closed = changed;
                    return Err(Broken::Disconnected);
                }
            }
        }
    }

    /// Sends the message at this place; the last one ends the batch.
    async fn send(&self, message: &Outgoing, place: usize, of: usize) -> Result<(), BusError> {
        const START: u8 = 0;
        const APPEND: u8 = 1;
        const COMMIT: u8 = 2;
        let operation = match place {
            _ if place + 1 == of => COMMIT,
            0 => START,
            _ => APPEND,
        };
        let BatchInbox { prefix, .. } = &self.inbox;
        let reply = format!("{prefix}.{}.{STEP}.fail.{}.{operation}.$FI", self.name, place + 1);
        let headers = headers_of(message)?;
        let (subject, payload) = (message.subject.clone(), message.payload.clone());
        let client = &self.bus.inner.client;
        let sent = client.publish_with_reply_and_headers(subject, reply, headers, payload).await;
        sent.map_err(|e| BusError::publish(&message.subject, e))
    }
}

/// What the server says about a batch.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It is about an earlier batch.
    OfAnother,
    /// So many are stored.
    Stored(usize),
    /// It has ended with so many, each of which is stored or was before.
    Ended(usize),
    /// It will not be confirmed.
    Broken(Broken),
}

#[derive(Deserialize)]
struct Text {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    seq: usize,
    #[serde(default)]
    count: usize,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
}

/// What JetStream says where batches are not allowed.
const BATCHES_DISABLED: u64 = 10_205;

fn read(answer: &Message, name: &str) -> Answer {
    // It comes to the reply subject of the message that it is about.
    if answer.subject.rsplit('.').nth(5) != Some(name) {
        return Answer::OfAnother;
    }
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Answer::Broken(Broken::Refused);
    }
    read_text(&answer.payload)
}

fn read_text(payload: &[u8]) -> Answer {
    let Ok(text) = serde_json::from_slice::<Text>(payload) else {
        return Answer::Broken(Broken::Refused);
    };
    match (text.kind.as_str(), text.error) {
        ("ack", None) => Answer::Stored(text.seq),
        ("", None) => Answer::Ended(text.count),
        ("", Some(error)) if error.err_code == BATCHES_DISABLED => {
            Answer::Broken(Broken::Unsupported)
        }
        _ => Answer::Broken(Broken::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let table = [
            (r#"{"type":"ack","seq":0,"msgs":100}"#, Answer::Stored(0)),
            (r#"{"type":"ack","seq":256,"msgs":256}"#, Answer::Stored(256)),
            (r#"{"type":"gap","last_seq":2,"seq":3}"#, Answer::Broken(Broken::Refused)),
            (
                r#"{"type":"err","seq":2,"error":{"code":503,"err_code":10077,"description":"full"}}"#,
                Answer::Broken(Broken::Refused),
            ),
            (r#"{"stream":"S","seq":6,"batch":"b","count":5}"#, Answer::Ended(5)),
            // All were stored before.
            (r#"{"stream":"S","seq":0,"batch":"b","count":5}"#, Answer::Ended(5)),
            // A server that does not know of batches acknowledges each message by itself.
            (r#"{"stream":"S","seq":6}"#, Answer::Ended(0)),
            (
                r#"{"error":{"code":400,"err_code":10205,"description":"disabled"},"stream":"S","seq":0}"#,
                Answer::Broken(Broken::Unsupported),
            ),
            (
                r#"{"error":{"code":400,"err_code":10208,"description":"unknown"},"stream":"S","seq":0}"#,
                Answer::Broken(Broken::Refused),
            ),
            ("", Answer::Broken(Broken::Refused)),
            ("7", Answer::Broken(Broken::Refused)),
        ];
        for (text, expect) in table {
            assert_eq!(read_text(text.as_bytes()), expect, "{text}");
        }
    }
}
