use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use url::Url;

use super::connect::ConnectTimedOut;
use super::guard::AddressRefused;
use super::secret::Scrubber;
use super::target;
use crate::{StepError, code};

type Cause<'a> = &'a (dyn Error + 'static);

/// So much of the body of an answer goes into an error, in bytes.
const EXCERPT_BYTES: usize = 1_024;

/// The longest pause that a service is given when it asks to be left alone: a day.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What an error tells of the request that it ended.
#[derive(Clone)]
pub(super) struct Place {
    method: Method,
    url: String,
    scrubber: Arc<Scrubber>,
}

impl Place {
    pub(super) fn new(method: &Method, url: &Url, scrubber: &Arc<Scrubber>) -> Self {
        let url = scrubber.scrub(&target::shown(url));
        Self { method: method.clone(), url, scrubber: Arc::clone(scrubber) }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn permanent(&self, code: &str, what: &str) -> StepError {
        self.mark(StepError::permanent(code, what), Value::Null)
    }

    /// An error about an answer: its status, and the beginning of its body.
    pub(super) fn answer(&self, code: &str, what: &str, status: u16, body: &[u8]) -> StepError {
        self.mark(StepError::permanent(code, what), self.seen(status, body))
    }

    /// No answer within the time that it may take.
    pub(super) fn timed_out(&self, limit: Duration) -> StepError {
        let message = format!("no answer within {limit:?}");
        self.mark(
            StepError::retryable(code::API_TIMEOUT, message).with_type("timeout"),
            Value::Null,
        )
    }

    /// No answer at all, or one that broke off.
    pub(super) fn transport(&self, error: Cause<'_>) -> StepError {
        let message = chain(error);
        let error = if let Some(refused) = find::<AddressRefused>(error) {
            StepError::permanent(code::API_ADDRESS_REFUSED, refused.to_string())
        } else if let Some(slow) = find::<ConnectTimedOut>(error) {
            StepError::retryable(code::API_TIMEOUT, slow.to_string()).with_type("timeout")
        } else if let Some(rustls::Error::InvalidCertificate(why)) = find::<rustls::Error>(error) {
            let message = format!("the certificate of the service is refused: {why}");
            StepError::permanent(code::API_TLS_REFUSED, message)
        } else if is_timeout(error) {
            StepError::retryable(code::API_TIMEOUT, message).with_type("timeout")
        } else {
            StepError::retryable(code::API_UNREACHABLE, message)
        };
        self.mark(error, Value::Null)
    }

    /// What a status means that is no success and that the caller does not expect.
    pub(super) fn status(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> StepError {
        let message = format!("answered {status}");
        let asked = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let pause = asked.and_then(|asked| retry_after(asked, SystemTime::now()));
        let error = match (status.as_u16(), pause) {
            (429 | 503, Some(pause)) => StepError::rate_limited(pause),
            (408 | 425 | 429 | 500..=599, _) => {
                StepError::retryable(code::API_STATUS_RETRYABLE, message)
            }
            (300..=399, _) => {
                StepError::permanent(code::API_REDIRECT_REFUSED, format!("{message}, not followed"))
            }
            _ => StepError::permanent(code::API_STATUS_REFUSED, message),
        };
        self.mark(error, self.seen(status.as_u16(), body))
    }

    fn seen(&self, status: u16, body: &[u8]) -> Value {
        json!({"status": status, "body": self.excerpt(body)})
    }

    /// How much of a body is needed to make an excerpt of it.
    pub(super) fn excerpt_reach(scrubber: &Scrubber) -> usize {
        EXCERPT_BYTES + scrubber.reach()
    }

    /// Scrubbed before it is cut: half a secret would not be recognised.
    fn excerpt(&self, body: &[u8]) -> String {
        let body = &body[..body.len().min(Self::excerpt_reach(&self.scrubber))];
        let text = String::from_utf8_lossy(body).replace('\0', "\u{fffd}");
        let mut text = self.scrubber.scrub_beginning(&text);
        text.truncate(text.floor_char_boundary(EXCERPT_BYTES));
        text
    }

    /// The error with what it is about. Every error of a request passes here.
    pub(super) fn mark(&self, error: StepError, seen: Value) -> StepError {
        let mut failure = error.into_failure();
        let message = format!("{} {}: {}", self.method, self.url, failure.message);
        failure.message = self.scrubber.scrub(&message);
        let mut context = json!({"method": self.method.as_str(), "url": self.url});
        for (key, value) in seen.as_object().into_iter().flatten() {
            context[key] = value.clone();
        }
        failure.context = context;
        StepError::from_failure(failure)
    }
}

/// The pause of a `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date, which may be past.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let pause = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        value.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(pause.min(MAX_RETRY_AFTER))
}

/// The error of this type among the causes of another one.
fn find<'a, T: Error + 'static>(error: Cause<'a>) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn is_timeout(error: Cause<'_>) -> bool {
    find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

fn causes<'a>(error: Cause<'a>) -> impl Iterator<Item = Cause<'a>> {
    std::iter::successors(Some(error), |&error: &Cause<'a>| {
        // The source of an I/O error is that of the error it wraps: it would be left out.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as _).or_else(|| error.source())
    })
}

/// The texts of all causes that say something new.
fn chain(error: Cause<'_>) -> String {
    let mut message = String::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if message.is_empty() {
            message = text;
        } else if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let table = [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:49:38 GMT", Some(1)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("86401", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("Fri, 31 Dec 2100 00:00:00 GMT", Some(86_400)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ];
        for (value, expect) in table {
            assert_eq!(retry_after(value, now), expect.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn excerpts() {
        let scrubber = Arc::new(Scrubber::new(["canary-canary".to_owned()]));
        let url = Url::parse("https://h.example/").expect("a URL");
        let place = Place::new(&Method::GET, &url, &scrubber);
        let at = |start: usize| format!("{}canary-canary{}", "x".repeat(start), "y".repeat(2_000));
        for start in [0, 1_000, 1_015, 1_023, 1_024, 1_030] {
            let got = place.excerpt(at(start).as_bytes());
            assert_eq!(got.len(), EXCERPT_BYTES, "{start}");
            assert!(!got.contains('c') || start > EXCERPT_BYTES, "{start}: {got}");
        }
        let echoes = place.excerpt("canary-canary ".repeat(100).as_bytes());
        assert_eq!(echoes.replace("*** ", ""), "", "the last one is cut in the middle");
        assert_eq!(place.excerpt(b"a\0\xff"), "a\u{fffd}\u{fffd}");
        let wide = place.excerpt("\u{e9}".repeat(600).as_bytes());
        assert_eq!(wide.len(), EXCERPT_BYTES);
    }
}
