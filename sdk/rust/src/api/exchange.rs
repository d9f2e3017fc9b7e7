use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde_json::json;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::client::{Inner, SDK};
use super::failure::Place;
use super::request::Draft;
use super::{ApiResponse, target};
use crate::{StepError, code};

/// Sends a request, follows redirections and reads the answer, all within the client's time.
pub(super) async fn run(draft: Draft) -> Result<ApiResponse, StepError> {
    let client = draft.client.clone();
    let exchange = Exchange {
        client: client.inner(),
        accepted: draft.accepted.clone(),
        deadline: Instant::now() + client.inner().timeout,
    };
    let mut hop = Hop::first(draft);
    let mut redirects_left = client.inner().max_redirects;
    loop {
        let place = Place::new(&hop.method, &hop.url, &client.inner().scrubber);
        let answer = exchange.send(&hop, &place).await?;
        let status = answer.status();
        match redirection(&answer).filter(|_| !exchange.accepts(status)) {
            Some(location) if redirects_left > 0 => {
                redirects_left -= 1;
                hop = hop
                    .follow(status, &location)
                    .map_err(|error| place.mark(error, json!({"status": status.as_u16()})))?;
            }
            _ => return exchange.receive(answer, hop.url, place).await,
        }
    }
}

struct Exchange<'a> {
    client: &'a Inner,
    accepted: Vec<u16>,
    deadline: Instant,
}

impl Exchange<'_> {
    fn accepts(&self, status: StatusCode) -> bool {
        status.is_success() || self.accepted.contains(&status.as_u16())
    }

    async fn send(&self, hop: &Hop, place: &Place) -> Result<Response<Incoming>, StepError> {
        let request = hop.request(self.client, place)?;
        match timeout_at(self.deadline, self.client.http.request(request)).await {
            Ok(answer) => answer.map_err(|error| place.transport(&error)),
            Err(_) => Err(place.timed_out(self.client.timeout)),
        }
    }

    async fn receive(
        &self,
        answer: Response<Incoming>,
        url: Url,
        place: Place,
    ) -> Result<ApiResponse, StepError> {
        let (head, body) = answer.into_parts();
        let mut read = Vec::new();
        if !self.accepts(head.status) {
            // Whatever there is of the body; the status alone is worth more than none.
            let enough = Place::excerpt_reach(&self.client.scrubber);
            let _ = timeout_at(self.deadline, read_body(body, enough, &mut read)).await;
            return Err(place.status(head.status, &head.headers, &read));
        }
        let limit = self.client.max_body_bytes;
        // A body that says that it is too large is not read at all.
        let is_too_large = body.size_hint().lower() > limit as u64;
        let is_whole = !is_too_large
            && match timeout_at(self.deadline, read_body(body, limit, &mut read)).await {
                Ok(is_whole) => is_whole.map_err(|error| place.transport(&error))?,
                Err(_) => return Err(place.timed_out(self.client.timeout)),
            };
        if !is_whole {
            let what = format!("the answer has more than {limit} bytes");
            return Err(place.answer(code::API_BODY_TOO_LARGE, &what, head.status.as_u16(), &read));
        }
        let body = Bytes::from(read);
        Ok(ApiResponse { status: head.status, headers: head.headers, body, url, place })
    }
}

/// Reads up to so many bytes; tells whether that was all.
async fn read_body(
    mut body: Incoming,
    limit: usize,
    into: &mut Vec<u8>,
) -> Result<bool, hyper::Error> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = limit - into.len();
        into.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where an answer wants the request to go on.
fn redirection(answer: &Response<Incoming>) -> Option<String> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = answer.headers().get(LOCATION)?;
    // Locations beyond ASCII are against the protocol and sent all the same.
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

/// One of the requests that a redirected request comes to.
struct Hop {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
    /// Whether it has never been sent away from where it began.
    is_first_origin: bool,
}

impl Hop {
    fn first(draft: Draft) -> Self {
        let Draft { method, url, headers, body, .. } = draft;
        Self { method, url, headers, body, is_first_origin: true }
    }

    fn request(&self, client: &Inner, place: &Place) -> Result<Request<Full<Bytes>>, StepError> {
        let uri: Uri = self.url.as_str().parse().map_err(|error| {
            place.permanent(code::API_URL_INVALID, &format!("no usable URL: {error}"))
        })?;
        let mut request = Request::new(Full::new(self.body.clone().unwrap_or_default()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(SDK));
        // Credentials do not come back from an excursion either: who sent us here chose the URL.
        let is_home = client.base.as_ref().is_some_and(|base| base.is_home(&self.url));
        if self.is_first_origin && is_home {
            headers.extend(client.headers.clone());
        }
        headers.extend(self.headers.clone());
        Ok(request)
    }

    fn follow(mut self, status: StatusCode, location: &str) -> Result<Self, StepError> {
        let refuse = |why: &str| Err(StepError::permanent(code::API_REDIRECT_REFUSED, why));
        let next = target::follow(&self.url, location)?;
        if self.url.scheme() == "https" && next.scheme() == "http" {
            return refuse("redirected from https to http");
        }
        // RFC 9110, section 15.4: these turn a request that changes something into one that looks.
        let turns_to_get = match status.as_u16() {
            303 => self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if turns_to_get {
            self.method = Method::GET;
            self.body = None;
            self.headers.remove(CONTENT_TYPE);
            self.headers.remove("idempotency-key");
        }
        if target::origin(&next) != target::origin(&self.url) {
            if self.body.is_some() {
                return refuse("redirected to another origin, where its body does not go");
            }
            self.is_first_origin = false;
            let accept = self.headers.remove(ACCEPT);
            self.headers.clear();
            self.headers.extend(accept.map(|accept| (ACCEPT, accept)));
        }
        self.url = next;
        Ok(self)
    }
}
