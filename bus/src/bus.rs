use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use async_nats::header::{HeaderMap, HeaderName};
use async_nats::jetstream;
use async_nats::jetstream::context::ContextBuilder;
use bytes::Bytes;
use serde::Serialize;
use tasker_messages::{PROTOCOL_HEADER, PROTOCOL_VERSION};
use tokio::sync::watch;

use crate::clock::ServerClock;
use crate::incoming::Subscription;
use crate::publish::Publishers;
use crate::{BusError, Connection, connection};

/// Parsed once: names are compared for every message.
pub(crate) static PROTOCOL: LazyLock<HeaderName> =
    LazyLock::new(|| HeaderName::from_static(PROTOCOL_HEADER));

/// Carried by what is published once more because its acknowledgement is missing.
pub(crate) static REPEATED: HeaderName = HeaderName::from_static("tasker-repeated");

static PROTOCOL_HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut headers = HeaderMap::new();
    headers.insert(PROTOCOL.clone(), PROTOCOL_VERSION);
    headers
});

/// Headers with the protocol version, which every message carries.
pub(crate) fn protocol_headers() -> HeaderMap {
    PROTOCOL_HEADERS.clone()
}

/// One process's connection to NATS. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) connection: watch::Receiver<Connection>,
    pub(crate) publishers: Publishers,
    pub(crate) timeout: Duration,
    pub(crate) clock: ServerClock,
    /// When the durables of the control and submit streams were created, or found to exist, by this process.
    pub(crate) durables_ensured: watch::Sender<Option<Instant>>,
}

impl Bus {
    /// Prepares a connection under a name that shows in the server's monitoring. Connecting, and
    /// reconnecting for ever, goes on in the background; see [`Self::connection`].
    ///
    /// # Errors
    /// If the address cannot be read.
    pub async fn connect(settings: &tasker_config::Nats, name: &str) -> Result<Bus, BusError> {
        let (client, connection) = connection::connect(settings, name).await?;
        let timeout = settings.request_timeout();
        let jetstream = ContextBuilder::new().timeout(timeout).build(client.clone());
        let publishers = Publishers::new(settings.max_unacked_publishes);
        let clock = ServerClock::new();
        let durables_ensured = watch::Sender::new(None);
        let inner =
            Inner { client, jetstream, connection, publishers, timeout, clock, durables_ensured };
        Ok(Bus { inner: Arc::new(inner) })
    }

    /// Whether there is a connection, and which one.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.inner.connection.clone()
    }

    /// How long an answer may take, as the settings say.
    pub fn request_timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// What the clock of the server was at a moment, or a little less, by what it said when the streams
    /// were looked at last; `None` before the first time.
    pub fn server_unix_nanos(&self, moment: Instant) -> Option<i64> {
        self.inner.clock.unix_nanos_at(moment)
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    /// [`BusError::TimedOut`].
    pub async fn wait_connected(&self, timeout: Duration) -> Result<(), BusError> {
        let mut connection = self.connection();
        let connected = connection.wait_for(|connection| connection.connected);
        match tokio::time::timeout(timeout, connected).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(BusError::TimedOut(timeout)),
        }
    }

    /// Waits for another connection than there is at the time of this call. What was on its way is lost with
    /// the server, if that was killed.
    pub fn connected_anew(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut connection = self.connection();
        let epoch = connection.borrow_and_update().epoch;
        async move {
            // A bus that is closed says nothing any more.
            if connection.wait_for(|now| now.epoch != epoch && now.connected).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Asks, and asks again at once when the connection is another one. Only for questions that may be
    /// answered twice, at any time.
    pub async fn ask_each_connection<A: Future>(&self, ask: impl Fn() -> A) -> A::Output {
        loop {
            let connected_anew = self.connected_anew();
            tokio::select! {
                biased;
                answer = ask() => return answer,
                () = connected_anew => {}
            }
        }
    }

    /// Sends a droppable message. Without a connection it is dropped at once and counted: what is
    /// sent this way is worth nothing later.
    ///
    /// # Errors
    /// If the message cannot be encoded, is too large, or the client is closed.
    pub async fn publish<T: Serialize>(
        &self,
        subject: String,
        message: &T,
    ) -> Result<(), BusError> {
        if !self.inner.connection.borrow().connected {
            metrics::counter!("tasker_bus_dropped_messages_total").increment(1);
            return Ok(());
        }
        let payload = encode(&subject, message)?;
        self.inner
            .client
            .publish_with_headers(subject.clone(), protocol_headers(), payload)
            .await
            .map_err(|e| BusError::publish(subject, e))
    }

    /// Listens to a subject; wildcards are allowed. Members of a group share the messages.
    ///
    /// # Errors
    /// If the subject is invalid or the client is closed.
    pub async fn subscribe(
        &self,
        subject: &str,
        group: Option<&str>,
    ) -> Result<Subscription, BusError> {
        let client = &self.inner.client;
        let subscriber = match group {
            Some(group) => client.queue_subscribe(subject.to_owned(), group.to_owned()).await,
            None => client.subscribe(subject.to_owned()).await,
        };
        let subscriber = subscriber.map_err(|e| BusError::send(subject, e))?;
        Ok(Subscription::new(self.clone(), subscriber))
    }

    /// Waits until everything sent so far has been handed to the server's socket.
    ///
    /// # Errors
    /// [`BusError::TimedOut`] after the request timeout, or if the client is closed.
    pub async fn flush(&self) -> Result<(), BusError> {
        match tokio::time::timeout(self.inner.timeout, self.inner.client.flush()).await {
            Ok(flushed) => flushed.map_err(|e| BusError::send("", e)),
            Err(_) => Err(BusError::TimedOut(self.inner.timeout)),
        }
    }

    /// Ends all subscriptions after what has arrived, and closes the connection. Nothing can be
    /// sent afterwards.
    ///
    /// # Errors
    /// [`BusError::TimedOut`] after the request timeout, or if the client is closed already.
    pub async fn drain(&self) -> Result<(), BusError> {
        match tokio::time::timeout(self.inner.timeout, self.inner.client.drain()).await {
            Ok(drained) => drained.map_err(|e| BusError::send("", e)),
            Err(_) => Err(BusError::TimedOut(self.inner.timeout)),
        }
    }
}

pub(crate) fn encode<T: Serialize>(subject: &str, message: &T) -> Result<Bytes, BusError> {
    serde_json::to_vec(message)
        .map(Bytes::from)
        .map_err(|source| BusError::Encode { subject: subject.to_owned(), source })
}
