//! Pipelined JetStream publishes whose acknowledgements are all awaited.
//!
//! The context of the client library allows 5,000 unacknowledged publishes and then blocks, so that
//! two callers that each wait for room while they hold what the other one needs would wait for
//! ever. Here a call reads acknowledgements from an inbox of its own while it publishes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::header::{self, HeaderMap, HeaderValue};
use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::Instant;

use crate::batch::BatchInbox;
use crate::bus::{REPEATED, protocol_headers};
use crate::{Bus, BusError, Connection, PublishError};

/// One message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where to.
    pub subject: String,
    /// The server drops a second message of the same id within the duplicate window.
    pub message_id: String,
    /// The message.
    pub payload: Bytes,
}

/// A message that JetStream has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its place in the stream.
    pub sequence: u64,
    /// Whether an earlier call had already published this message id. After an own repetition it
    /// cannot be told and is `false`.
    pub duplicate: bool,
}

/// Calls at a time; each has an equal share of the unacknowledged publishes.
const CALLS: usize = 4;

/// What all publishing calls of a process share.
pub(crate) struct Publishers {
    pub(crate) calls: Semaphore,
    idle: Mutex<Vec<Inbox>>,
    window: usize,
    pub(crate) idle_batches: Mutex<Vec<BatchInbox>>,
    /// Whether the stream of work items takes batches, as far as is known.
    takes_batches: AtomicBool,
}

/// Where acknowledgements of one call at a time arrive, at `<prefix>.<number>`.
struct Inbox {
    subscriber: Subscriber,
    prefix: String,
    /// Numbers rise over the calls, so that a late acknowledgement is not taken for a new one.
    next_number: u64,
}

impl Publishers {
    pub(crate) fn new(max_unacked: u32) -> Self {
        let window = (max_unacked as usize / CALLS).max(1);
        Self {
            calls: Semaphore::new(CALLS),
            idle: Mutex::default(),
            window,
            idle_batches: Mutex::default(),
            takes_batches: AtomicBool::new(false),
        }
    }

    pub(crate) fn takes_batches(&self) -> bool {
        self.takes_batches.load(Ordering::Relaxed)
    }

    pub(crate) fn set_takes_batches(&self, takes: bool) {
        self.takes_batches.store(takes, Ordering::Relaxed);
    }
}

impl Bus {
    /// Publishes messages to JetStream and waits for all acknowledgements; results are in the
    /// order of the messages. What is not acknowledged within the request timeout, or before the
    /// connection was lost, is published once more under the same id.
    pub async fn publish_jetstream(
        &self,
        messages: Vec<Outgoing>,
    ) -> Vec<Result<Published, PublishError>> {
        self.publish_each(messages, false).await
    }

    /// The same; `repeated` says that there was a first time.
    pub(crate) async fn publish_each(
        &self,
        messages: Vec<Outgoing>,
        repeated: bool,
    ) -> Vec<Result<Published, PublishError>> {
        if messages.is_empty() {
            return Vec::new();
        }
        let publishers = &self.inner.publishers;
        let _call = publishers.calls.acquire().await;
        let idle = publishers.idle.lock().await.pop();
        let inbox = match idle {
            Some(inbox) => inbox,
            None => match self.ack_inbox().await {
                Ok(inbox) => inbox,
                Err(error) => {
                    tracing::error!(%error, "cannot publish");
                    return messages.iter().map(|_| Err(PublishError::Unknown)).collect();
                }
            },
        };
        let mut call = Call::new(self, inbox, messages, publishers.window);
        call.pass(repeated).await;
        if call.has_unknown() {
            metrics::counter!("tasker_bus_repeated_publishes_total").increment(1);
            call.pass(true).await;
        }
        let (inbox, results) = call.finish();
        publishers.idle.lock().await.push(inbox);
        results
    }

    async fn ack_inbox(&self) -> Result<Inbox, BusError> {
        let prefix = self.inner.client.new_inbox();
        let subject = format!("{prefix}.*");
        let subscriber = self.inner.client.subscribe(subject.clone()).await;
        let subscriber = subscriber.map_err(|e| BusError::send(subject, e))?;
        Ok(Inbox { subscriber, prefix, next_number: 0 })
    }
}

/// One call and what is known about its messages so far.
struct Call<'a> {
    bus: &'a Bus,
    connection: watch::Receiver<Connection>,
    timeout: Duration,
    window: usize,
    inbox: Inbox,
    messages: Vec<Outgoing>,
    /// `None` is unknown.
    results: Vec<Option<Result<Published, PublishError>>>,
}

impl<'a> Call<'a> {
    fn new(bus: &'a Bus, inbox: Inbox, messages: Vec<Outgoing>, window: usize) -> Self {
        let results = messages.iter().map(|_| None).collect();
        let (connection, timeout) = (bus.connection(), bus.inner.timeout);
        Self { bus, connection, timeout, window, inbox, messages, results }
    }

    fn has_unknown(&self) -> bool {
        self.results.iter().any(Option::is_none)
    }

    fn finish(self) -> (Inbox, Vec<Result<Published, PublishError>>) {
        let results = self.results.into_iter();
        (self.inbox, results.map(|r| r.unwrap_or(Err(PublishError::Unknown))).collect())
    }

    /// Publishes what is unknown and collects acknowledgements until all have come, none comes for
    /// the time-out, or the connection is another one, so that what is missing was lost with it.
    async fn pass(&mut self, repeated: bool) {
        let epoch = self.connection.borrow_and_update().epoch;
        let todo: Vec<usize> =
            (0..self.messages.len()).filter(|&n| self.results[n].is_none()).collect();
        let first_number = self.inbox.next_number;
        self.inbox.next_number += todo.len() as u64;
        let (mut sent, mut open) = (0, 0_usize);
        let mut deadline = Instant::now() + self.timeout;
        while open > 0 || sent < todo.len() {
            if sent < todo.len() && open < self.window {
                let number = first_number + sent as u64;
                match tokio::time::timeout(self.timeout, self.publish(todo[sent], number, repeated))
                    .await
                {
                    Ok(Ok(())) => open += 1,
                    Ok(Err(error)) => self.results[todo[sent]] = Some(Err(error.into())),
                    Err(_) => return,
                }
                sent += 1;
                continue;
            }
            tokio::select! {
                biased;
                ack = self.inbox.subscriber.next() => {
                    let Some(ack) = ack else { return };
                    deadline = Instant::now() + self.timeout;
                    let index = number_of(&ack).and_then(|n| n.checked_sub(first_number));
                    let Some(&index) = index.and_then(|n| todo.get(n as usize)) else { continue };
                    if self.results[index].is_none() {
                        self.results[index] = Some(read_ack(&ack, repeated));
                        open -= 1;
                    }
                }
                () = tokio::time::sleep_until(deadline) => return,
                changed = self.connection.wait_for(|c| c.epoch != epoch) => {
                    let _closed = changed;
                    return;
                }
            }
        }
    }

    /// A repeated one says so: a server that was restarted meanwhile knows only the ids of what it still
    /// stores, and what was worked off since the first time it takes for new.
    async fn publish(&self, index: usize, number: u64, repeated: bool) -> Result<(), BusError> {
        let message = &self.messages[index];
        let mut headers = headers_of(message)?;
        if repeated {
            headers.insert(REPEATED.clone(), "1");
        }
        let reply = format!("{}.{number}", self.inbox.prefix);
        let client = &self.bus.inner.client;
        let (subject, payload) = (message.subject.clone(), message.payload.clone());
        let sent = client.publish_with_reply_and_headers(subject, reply, headers, payload).await;
        sent.map_err(|e| BusError::publish(&message.subject, e))
    }
}

/// The protocol version and the message id.
pub(crate) fn headers_of(message: &Outgoing) -> Result<HeaderMap, BusError> {
    let id: HeaderValue = message
        .message_id
        .parse()
        .map_err(|e: header::ParseHeaderValueError| BusError::send(&message.subject, e))?;
    let mut headers = protocol_headers();
    headers.insert(header::NATS_MESSAGE_ID, id);
    Ok(headers)
}

fn number_of(ack: &Message) -> Option<u64> {
    ack.subject.rsplit_once('.')?.1.parse().ok()
}

/// What JetStream answers to a publish.
#[derive(Deserialize)]
struct PubAck {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

fn read_ack(ack: &Message, repeated: bool) -> Result<Published, PublishError> {
    if ack.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(PublishError::NoStream);
    }
    let read: PubAck = serde_json::from_slice(&ack.payload).map_err(|e| PublishError::Refused {
        code: 0,
        description: format!("the acknowledgement cannot be read: {e}"),
    })?;
    match read.error {
        Some(error) => {
            Err(PublishError::Refused { code: error.err_code, description: error.description })
        }
        None => Ok(Published { sequence: read.seq, duplicate: read.duplicate && !repeated }),
    }
}
