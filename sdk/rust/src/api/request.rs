use std::fmt;
use std::future::IntoFuture;

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use url::Url;

use super::client::MaybeClient;
use super::credentials::header_name;
use super::idempotency::{self, KeyInUse};
use super::{ApiClient, ApiPages, ApiResponse, Pagination, exchange, invalid_request, target};
use crate::{StepContext, StepError, code};

/// A request that is being put together; `.await` sends it.
///
/// The answer is a 2xx, or of a status that [`Self::accept_status`] names. All else is an error,
/// whose [`StepError::code`] tells what it was and [`StepError::is_retryable`] whether to try again:
///
/// | what | code | retried |
/// |---|---|---|
/// | status 429 or 503 with `Retry-After` | [`code::RATE_LIMITED`] | after that pause, at most [`crate::MAX_RETRY_AFTER`] |
/// | status 408, 425, 429, 5xx | [`code::API_STATUS_RETRYABLE`] | yes |
/// | other statuses | [`code::API_STATUS_REFUSED`] | no |
/// | status 3xx that is not followed | [`code::API_REDIRECT_REFUSED`] | no |
/// | no answer in time | [`code::API_TIMEOUT`] | yes |
/// | no name, no connection, one that broke | [`code::API_UNREACHABLE`] | yes |
/// | the service's certificate is not trusted | [`code::API_TLS_REFUSED`] | no |
/// | an address that is not public, another scheme | [`code::API_ADDRESS_REFUSED`] | no |
/// | no usable URL | [`code::API_URL_INVALID`] | no |
/// | a body over the client's limit | [`code::API_BODY_TOO_LARGE`] | no |
/// | a method, header or body that cannot be sent | [`code::API_REQUEST_INVALID`] | no |
#[must_use = "a request is sent when it is awaited"]
pub struct ApiRequest {
    /// Or the first mistake in it.
    draft: Result<Draft, StepError>,
}

/// A request without mistakes.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) client: ApiClient,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) accepted: Vec<u16>,
    pub(super) step: Option<StepContext>,
    pub(super) idempotency_part: Option<String>,
}

impl ApiRequest {
    pub(super) fn new(client: MaybeClient, method: &str, path_or_url: &str) -> Self {
        Self { draft: client.and_then(|client| Draft::new(client, method, path_or_url)) }
    }

    fn change(mut self, change: impl FnOnce(&mut Draft) -> Result<(), StepError>) -> Self {
        self.draft = self.draft.and_then(|mut draft| change(&mut draft).map(|()| draft));
        self
    }

    /// Adds a parameter to the URL, encoded.
    pub fn query(self, name: &str, value: impl ToString) -> Self {
        self.change(|draft| {
            draft.url.query_pairs_mut().append_pair(name, &value.to_string());
            Ok(())
        })
    }

    /// A header, in place of the client's of this name.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.change(|draft| {
            let name = header_name(name)?;
            let value = HeaderValue::try_from(value).map_err(|_| {
                invalid_request(format!("the value of the header `{name}` cannot be sent"))
            })?;
            draft.headers.insert(name, value);
            Ok(())
        })
    }

    /// A body in JSON.
    pub fn json(self, body: &impl Serialize) -> Self {
        self.change(|draft| {
            let body = serde_json::to_vec(body)
                .map_err(|error| invalid_request(format!("the body is not JSON: {error}")))?;
            draft.set_body("application/json", body)
        })
    }

    /// A body as a form would send it: names and values.
    pub fn form<N: AsRef<str>, V: AsRef<str>>(
        self,
        fields: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.change(|draft| {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            let body = form.extend_pairs(fields).finish();
            draft.set_body("application/x-www-form-urlencoded", body)
        })
    }

    /// A body of any type.
    pub fn body(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.change(|draft| draft.set_body(content_type, body))
    }

    /// A status that is an answer and no error, such as 404 for "there is none".
    pub fn accept_status(self, status: u16) -> Self {
        self.change(|draft| {
            draft.accepted.push(status);
            Ok(())
        })
    }

    /// Sends the request for a step: it is given up with [`code::CANCELLED`] when the step should
    /// stop, and `POST` and `PATCH` carry [`StepContext::idempotency_key`] in the header
    /// `Idempotency-Key`, unless they have such a header already. Requests that an [`crate::Api`]
    /// handler makes are for its step.
    ///
    /// The key is the same in every attempt, so a service that knows it does nothing twice. For the
    /// same reason a step can use it for one effect only: another `POST` or `PATCH` of an attempt in
    /// which one was answered fails with [`code::API_REQUEST_INVALID`] unless
    /// [`Self::idempotency_part`] tells them apart.
    pub fn for_step(self, ctx: &StepContext) -> Self {
        self.change(|draft| {
            draft.step = Some(ctx.clone());
            Ok(())
        })
    }

    /// Which of the effects of the step this request has: `<key of the step>-<part>` is sent as its
    /// idempotency key. Must be the same in every attempt; a name or number of the item makes sense.
    pub fn idempotency_part(self, part: impl ToString) -> Self {
        self.change(|draft| {
            draft.idempotency_part = Some(part.to_string());
            Ok(())
        })
    }

    /// Goes through an answer that comes in pages, beginning with this request.
    pub fn pages(self, pagination: Pagination) -> ApiPages {
        ApiPages::new(self.draft, pagination)
    }
}

impl Draft {
    fn new(client: ApiClient, method: &str, path_or_url: &str) -> Result<Self, StepError> {
        let method = match Method::from_bytes(method.as_bytes()) {
            Ok(method) if method != Method::CONNECT && method != Method::TRACE => method,
            _ => return Err(invalid_request(format!("{method:?} is no method of a request"))),
        };
        let url = target::resolve(client.inner().base.as_ref(), path_or_url)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.1"));
        Ok(Self {
            client,
            method,
            url,
            headers,
            body: None,
            accepted: Vec::new(),
            step: None,
            idempotency_part: None,
        })
    }

    fn set_body(&mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Result<(), StepError> {
        let content_type = HeaderValue::try_from(content_type)
            .map_err(|_| invalid_request("the type of the body cannot be sent"))?;
        self.headers.insert(CONTENT_TYPE, content_type);
        self.body = Some(Bytes::from(body.into()));
        Ok(())
    }

    pub(super) async fn send(mut self) -> Result<ApiResponse, StepError> {
        let step = self.step.clone();
        let key = self.add_idempotency_key()?;
        let answer = match step {
            None => exchange::run(self).await?,
            Some(step) => tokio::select! {
                biased;
                () = step.cancelled_wait() => {
                    let message = "the step was asked to stop";
                    return Err(StepError::retryable(code::CANCELLED, message));
                }
                answer = exchange::run(self) => answer?,
            },
        };
        if let Some(key) = key
            && answer.status.is_success()
        {
            key.keep();
        }
        Ok(answer)
    }

    /// The key of the step, while and after it is used without a part.
    fn add_idempotency_key(&mut self) -> Result<Option<KeyInUse>, StepError> {
        const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
        let is_wanted = matches!(self.method, Method::POST | Method::PATCH);
        if !is_wanted || self.headers.contains_key(HEADER) {
            return Ok(None);
        }
        let (value, in_use) = match (&self.step, self.idempotency_part.as_deref()) {
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                let why = "a part of an idempotency key needs a step: call `for_step`";
                return Err(invalid_request(why));
            }
            (Some(step), None) => (step.idempotency_key(), Some(idempotency::take(step)?)),
            (Some(step), Some(part)) => (format!("{}-{part}", step.idempotency_key()), None),
        };
        let value = HeaderValue::try_from(value)
            .map_err(|_| invalid_request("the part of the idempotency key cannot be sent"))?;
        self.headers.insert(HEADER, value);
        Ok(in_use)
    }
}

impl IntoFuture for ApiRequest {
    type Output = Result<ApiResponse, StepError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.draft?.send().await })
    }
}

impl fmt::Debug for ApiRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.draft {
            Ok(Draft { method, url, .. }) => f
                .debug_struct("ApiRequest")
                .field("method", method)
                .field("url", &target::shown(url))
                .finish_non_exhaustive(),
            Err(mistake) => f.debug_tuple("ApiRequest").field(mistake).finish(),
        }
    }
}
