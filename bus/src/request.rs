use std::time::Duration;

use async_nats::Request;
use async_nats::client::RequestErrorKind;
use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tasker_messages::Reply;

use crate::bus::{encode, protocol_headers};
use crate::{Bus, BusError, RequestError};

impl Bus {
    /// Asks a question and waits for the answer.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: String,
        question: &Q,
        timeout: Duration,
    ) -> Result<A, RequestError> {
        let request = request(protocol_headers(), encode(&subject, question)?);
        self.send_request(subject, request, timeout).await
    }

    /// Asks a question whose answer comes to this subject and not to the inbox of this process: it must be
    /// one of this question's own.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request_with_reply_to<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: String,
        reply_to: String,
        question: &Q,
        timeout: Duration,
    ) -> Result<A, RequestError> {
        let request = request(protocol_headers(), encode(&subject, question)?).inbox(reply_to);
        self.send_request(subject, request, timeout).await
    }

    /// Asks a question that is already encoded, with further headers (name, value).
    ///
    /// # Errors
    /// See [`RequestError`]; also for a header value with a line break.
    pub async fn request_raw<A: DeserializeOwned>(
        &self,
        subject: String,
        headers: &[(&'static str, &str)],
        payload: Bytes,
        timeout: Duration,
    ) -> Result<A, RequestError> {
        let mut all = protocol_headers();
        for &(name, value) in headers {
            let value: HeaderValue =
                value.parse().map_err(|e: async_nats::header::ParseHeaderValueError| {
                    BusError::send(subject.clone(), e)
                })?;
            all.insert(HeaderName::from_static(name), value);
        }
        self.send_request(subject, request(all, payload), timeout).await
    }

    async fn send_request<A: DeserializeOwned>(
        &self,
        subject: String,
        request: Request,
        timeout: Duration,
    ) -> Result<A, RequestError> {
        let request = request.timeout(Some(timeout));
        // The client's own timeout does not cover the wait for a place in its queue.
        let answered =
            tokio::time::timeout(timeout, self.inner.client.send_request(subject.clone(), request));
        let message = match answered.await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    RequestErrorKind::NoResponders => RequestError::NoResponders { subject },
                    RequestErrorKind::TimedOut => RequestError::TimedOut { subject, timeout },
                    RequestErrorKind::MaxPayloadExceeded => {
                        RequestError::Bus(BusError::TooLarge { subject, source: error.into() })
                    }
                    _ => RequestError::Bus(BusError::send(subject, error)),
                });
            }
            Err(_) => return Err(RequestError::TimedOut { subject, timeout }),
        };
        serde_json::from_slice::<Reply<A>>(&message.payload)
            .map_err(|source| RequestError::Malformed { subject, source })?
            .into_result()
            .map_err(RequestError::Refused)
    }
}

fn request(headers: HeaderMap, payload: Bytes) -> Request {
    Request::new().headers(headers).payload(payload)
}
