//! A pull loop with exact credit.
//!
//! The streams of the client library prefetch: messages would wait in memory while their time for
//! acknowledgement runs. Here the consumer says how many more messages it can take, and the server
//! never sends more.

use std::future::pending;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::{Bus, BusError, Connection, Delivery};

/// How a [`Puller`] asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullOptions {
    /// How long a request for messages is valid.
    pub expires: Duration,
    /// How often the server gives a sign of life while it has nothing to send. More than two
    /// missing signs void all credit.
    pub idle_heartbeat: Duration,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { expires: Duration::from_secs(30), idle_heartbeat: Duration::from_secs(5) }
    }
}

/// What a [`Puller`] has to say.
#[derive(Debug)]
pub enum PullEvent {
    /// A message; it has used up one credit.
    Message(Delivery),
    /// So much credit expired without messages.
    CreditReturned(u32),
    /// All credit is void. Ask again, after a back-off unless the reason is a reconnect.
    Reset(ResetReason),
}

/// Why all credit became void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// There is a new connection: what was published before may have been delivered to others.
    Reconnected,
    /// The durable or its stream does not exist (any more).
    NoConsumer,
    /// The server refuses, or is about to stop.
    Refused,
    /// The server has been silent for longer than two heartbeats.
    Silence,
}

/// Pulls from one durable consumer.
pub struct Puller {
    bus: Bus,
    ask: String,
    durable: String,
    options: PullOptions,
    inbox: Option<Inbox>,
    credit: u32,
}

/// Where deliveries arrive; a new one after each reset, so that requests of the past cannot
/// deliver into the credit of the present.
struct Inbox {
    subscriber: Subscriber,
    subject: String,
    connection: watch::Receiver<Connection>,
    epoch: u64,
    /// Whether the connection was lost since.
    lost: bool,
    last_sign: Instant,
    /// How many messages have come, signs of life among them.
    taken: u64,
    /// Why the inbox is being given up, and until when what has already arrived is read from it.
    closing: Option<(ResetReason, Instant)>,
}

/// How long what is on its way to an inbox that is given up may take.
const CLOSING_TIME: Duration = Duration::from_secs(3);
/// How many signs of life may be on their way, beside the messages that were asked for.
const SIGNS: u64 = 16;

impl Bus {
    /// Pulls from a durable consumer, which need not exist yet. Nothing is asked for before
    /// [`Puller::request`].
    pub fn pull(&self, stream: &str, durable: &str, options: PullOptions) -> Puller {
        Puller {
            bus: self.clone(),
            ask: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"),
            durable: durable.to_owned(),
            options,
            inbox: None,
            credit: 0,
        }
    }
}

impl Puller {
    /// How many messages may still arrive of those that were asked for.
    pub fn credit(&self) -> u32 {
        self.credit
    }

    /// The durable consumer.
    pub fn durable(&self) -> &str {
        &self.durable
    }

    /// Asks for `n` more messages. Does nothing while a reset is under way, or to come since the connection
    /// is lost: [`Self::next`] tells.
    ///
    /// # Errors
    /// If the client is closed.
    pub async fn request(&mut self, n: u32) -> Result<(), BusError> {
        self.request_for(n, self.options.expires).await
    }

    /// The same, with a request that is valid for so long. Where that is less than two signs of life are
    /// apart, the server gives none for it.
    ///
    /// # Errors
    /// If the client is closed.
    pub async fn request_for(&mut self, n: u32, expires: Duration) -> Result<(), BusError> {
        if let Some(inbox) = &mut self.inbox {
            inbox.look_at_connection().await;
            // What came to an inbox that is given up would count as delivered.
            if inbox.closing.is_some() || inbox.lost {
                return Ok(());
            }
        }
        if n == 0 {
            return Ok(());
        }
        let inbox = match &mut self.inbox {
            Some(inbox) => inbox,
            None => self.inbox.insert(Inbox::open(&self.bus).await?),
        };
        if self.credit == 0 {
            inbox.last_sign = Instant::now();
        }
        let heartbeat = self.options.idle_heartbeat;
        // 0 is none; the server refuses one of more than half the time that the request is valid.
        let heartbeat = if heartbeat * 2 <= expires { heartbeat } else { Duration::ZERO };
        let payload = format!(
            "{{\"batch\":{n},\"expires\":{},\"idle_heartbeat\":{}}}",
            expires.as_nanos(),
            heartbeat.as_nanos(),
        );
        let client = &self.bus.inner.client;
        // Counted first: if this future is dropped while it waits, the request may yet be sent.
        self.credit = self.credit.saturating_add(n);
        let sent = client
            .publish_with_reply(self.ask.clone(), inbox.subject.clone(), payload.into())
            .await;
        sent.map_err(|e| BusError::send(&self.ask, e))
    }

    /// What happens next. Waits for ever if nothing was asked for. Safe to cancel.
    pub async fn next(&mut self) -> PullEvent {
        loop {
            let Some(inbox) = &mut self.inbox else { return pending().await };
            // A look at a flag: messages that keep coming must not hide a new connection.
            if inbox.closing.is_none()
                && (inbox.lost || !matches!(inbox.connection.has_changed(), Ok(false)))
            {
                inbox.look_at_connection().await;
            }
            let deadline = match inbox.closing {
                Some((_, until)) => Some(until),
                None if self.credit > 0 => {
                    let silence = self.options.idle_heartbeat * 5 / 2;
                    Some(inbox.last_sign + silence)
                }
                None => None,
            };
            let open = inbox.closing.is_none();
            tokio::select! {
                biased;
                message = inbox.subscriber.next() => match message {
                    Some(message) => {
                        if let Some(event) = self.take_in(message).await {
                            return event;
                        }
                    }
                    None => return self.reset(ResetReason::Refused),
                },
                _ = inbox.connection.changed(), if open => inbox.look_at_connection().await,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return self.reset(ResetReason::Silence);
                }
            }
        }
    }

    /// Stops to take messages: asks the server for no more and gives up the inbox. All that it has sent
    /// meanwhile comes from [`Self::next`], then a [`PullEvent::Reset`].
    pub async fn close(&mut self) {
        let most = u64::from(self.credit);
        if let Some(inbox) = self.inbox.as_mut().filter(|inbox| inbox.closing.is_none()) {
            inbox.close_exactly(&self.bus, most).await;
        }
    }

    fn reset(&mut self, reason: ResetReason) -> PullEvent {
        let closing = self.inbox.take().and_then(|inbox| inbox.closing);
        let reason = closing.map_or(reason, |(reason, _)| reason);
        self.credit = 0;
        metrics::counter!("tasker_bus_pull_resets_total").increment(1);
        tracing::debug!(durable = self.durable, ?reason, "credit is void");
        PullEvent::Reset(reason)
    }

    async fn take_in(&mut self, message: Message) -> Option<PullEvent> {
        let inbox = self.inbox.as_mut()?;
        inbox.last_sign = Instant::now();
        inbox.taken += 1;
        if inbox.closing.is_some() && is_filler(&message) {
            return None;
        }
        let Some(status) = message.status else {
            self.credit = self.credit.saturating_sub(1);
            if !matches!(inbox.connection.has_changed(), Ok(false)) {
                inbox.connection_changed();
            }
            return match Delivery::read(&self.bus, message, inbox.lost) {
                Ok(delivery) => Some(PullEvent::Message(delivery)),
                Err(subject) => {
                    tracing::error!(subject = subject.as_str(), "not a delivery of JetStream");
                    None
                }
            };
        };
        match status {
            StatusCode::IDLE_HEARTBEAT => None,
            StatusCode::TIMEOUT | StatusCode::NOT_FOUND => {
                let returned = pending_messages(&message).min(self.credit);
                self.credit -= returned;
                (returned > 0).then_some(PullEvent::CreditReturned(returned))
            }
            StatusCode::NO_RESPONDERS => {
                inbox.close(ResetReason::NoConsumer).await;
                None
            }
            _ => {
                let text = message.description.unwrap_or_default();
                let reason = if text.to_ascii_lowercase().contains("consumer deleted") {
                    ResetReason::NoConsumer
                } else {
                    ResetReason::Refused
                };
                tracing::debug!(
                    durable = self.durable,
                    status = status.as_u16(),
                    text,
                    "pull ended"
                );
                inbox.close(reason).await;
                None
            }
        }
    }
}

impl Inbox {
    async fn open(bus: &Bus) -> Result<Self, BusError> {
        let mut connection = bus.connection();
        let epoch = connection.borrow_and_update().epoch;
        let subject = bus.inner.client.new_inbox();
        let subscriber = bus.inner.client.subscribe(subject.clone()).await;
        let subscriber = subscriber.map_err(|e| BusError::send(&subject, e))?;
        let last_sign = Instant::now();
        let (lost, taken, closing) = (false, 0, None);
        Ok(Self { subscriber, subject, connection, epoch, lost, last_sign, taken, closing })
    }

    async fn look_at_connection(&mut self) {
        if self.connection_changed() && self.closing.is_none() {
            self.close(ResetReason::Reconnected).await;
        }
    }

    /// Whether there is another connection than the one that the inbox was opened on.
    fn connection_changed(&mut self) -> bool {
        let Connection { connected, epoch, .. } = *self.connection.borrow_and_update();
        self.lost |= !connected || epoch != self.epoch;
        epoch != self.epoch
    }

    /// Ends the subscription at a message that server and client agree on, so that none is lost that the
    /// server has sent: the client library forgets a subscription that is drained or ended at once before
    /// the server knows, and what was under way would come back as if this process had vanished with it.
    /// The end is put behind all that may still come, and made to come by messages of our own. What the
    /// server has picked for this inbox and finds it gone is not lost, but counts as delivered: it goes to
    /// the next puller at once, as a redelivery. Who has no credit left when it closes is spared that.
    async fn close_exactly(&mut self, bus: &Bus, most: u64) {
        self.closing = Some((ResetReason::Refused, Instant::now() + CLOSING_TIME));
        let more = most + SIGNS;
        let mut sent = self.subscriber.unsubscribe_after(self.taken + more).await.is_ok();
        for _ in 0..more {
            sent &= bus.inner.client.publish(self.subject.clone(), Bytes::new()).await.is_ok();
        }
        if !sent {
            tracing::debug!("client is closed");
        }
    }

    /// Ends the subscription; what has already arrived can still be read.
    async fn close(&mut self, reason: ResetReason) {
        self.closing = Some((reason, Instant::now() + CLOSING_TIME));
        if let Err(error) = self.subscriber.drain().await {
            tracing::debug!(%error, "client is closed");
        }
    }
}

/// Whether it was sent by [`Inbox::close_exactly`].
fn is_filler(message: &Message) -> bool {
    message.status.is_none() && message.reply.is_none() && message.payload.is_empty()
}

/// How many messages of the request will not come. The server names it; an older one that does not
/// leaves the rest to the silence that follows.
fn pending_messages(message: &Message) -> u32 {
    let headers = message.headers.as_ref();
    let value = headers.and_then(|h| h.get_last("Nats-Pending-Messages"));
    value.and_then(|value| value.as_str().parse().ok()).unwrap_or(0)
}
