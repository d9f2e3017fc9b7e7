//! Messages on core NATS that are known to have reached the server.

use async_nats::header::{self, HeaderValue};
use bytes::Bytes;
use futures::StreamExt;

use crate::bus::protocol_headers;
use crate::{Bus, BusError, Outgoing};

impl Bus {
    /// Publishes messages on core NATS, each with its message id as `Nats-Msg-Id`, and returns when the
    /// server has taken them all. Messages that it never takes are left out, and returned with the reason.
    ///
    /// The server works off what a connection sends in order. So an echo that it is asked for after the
    /// messages says that they have arrived; written to a socket, they could still be lost with it.
    ///
    /// # Errors
    /// If it is not known whether all have arrived: there is no connection, another one than at the
    /// beginning, or no echo within the request timeout.
    pub async fn publish_confirmed(
        &self,
        messages: &[Outgoing],
    ) -> Result<Vec<(usize, BusError)>, BusError> {
        let timeout = self.inner.timeout;
        let before = *self.inner.connection.borrow();
        // Without a connection the messages would wait in the client and be sent after the error.
        if !before.connected {
            return Err(BusError::TimedOut(timeout));
        }
        let published = tokio::time::timeout(timeout, self.publish_and_echo(messages)).await;
        // The echo of another connection says nothing about what was written to the one before.
        if self.inner.connection.borrow().epoch != before.epoch {
            return Err(BusError::TimedOut(timeout));
        }
        published.unwrap_or(Err(BusError::TimedOut(timeout)))
    }

    async fn publish_and_echo(
        &self,
        messages: &[Outgoing],
    ) -> Result<Vec<(usize, BusError)>, BusError> {
        let client = &self.inner.client;
        let inbox = client.new_inbox();
        let mut echo =
            client.subscribe(inbox.clone()).await.map_err(|e| BusError::send(inbox.clone(), e))?;
        let mut refused = Vec::new();
        for (n, message) in messages.iter().enumerate() {
            match self.publish_once(message).await {
                Ok(()) => {}
                Err(error @ BusError::TooLarge { .. }) => refused.push((n, error)),
                Err(error) => return Err(error),
            }
        }
        client
            .publish(inbox.clone(), Bytes::new())
            .await
            .map_err(|e| BusError::publish(inbox.clone(), e))?;
        match echo.next().await {
            Some(_) => Ok(refused),
            None => Err(BusError::send(inbox, "the subscription has ended")),
        }
    }

    async fn publish_once(&self, message: &Outgoing) -> Result<(), BusError> {
        let id: HeaderValue = message
            .message_id
            .parse()
            .map_err(|e: header::ParseHeaderValueError| BusError::send(&message.subject, e))?;
        let mut headers = protocol_headers();
        headers.insert(header::NATS_MESSAGE_ID, id);
        let (subject, payload) = (message.subject.clone(), message.payload.clone());
        let sent = self.inner.client.publish_with_headers(subject, headers, payload).await;
        sent.map_err(|e| BusError::publish(&message.subject, e))
    }
}
