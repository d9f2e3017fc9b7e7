use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use super::error::{ClientError, Refused};
use super::patience::Patience;
use crate::exit::{Code, Exit};
use crate::output;

/// How long an answer may take beyond what the request itself asks to wait.
const ANSWER_TIME: Duration = Duration::from_secs(15);
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Failures are mentioned after this time, so that a long silence has a reason.
const SILENCE: Duration = Duration::from_secs(2);

/// One request, kept so that it can be sent again.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// How long the server was asked to wait.
    pub(super) wait: Duration,
}

/// Sends calls, again and again while they fail on the way.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: reqwest::Client,
    pub(super) base: Url,
}

impl Http {
    /// A client that sends this token with every request.
    pub(super) fn new(base: &str, token: Option<&str>) -> Result<Self, Exit> {
        let url =
            Url::parse(base).map_err(|e| Exit::usage(format!("invalid URL `{base}`: {e}")))?;
        if url.scheme() != "http" || url.cannot_be_a_base() {
            let message = format!("invalid URL `{base}`: only http:// is supported");
            return Err(Exit::usage(message));
        }
        // A proxy of the environment is for the internet, not for a cluster on this machine.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIME)
            .default_headers(authorization(token)?)
            .user_agent(concat!("tasker/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Exit::new(Code::Failed, format!("cannot set up HTTP: {e}")))?;
        Ok(Self { client, base: url })
    }

    /// The text of a 2xx answer.
    pub(super) async fn send(&self, call: &Call) -> Result<String, ClientError> {
        let mut patience = Patience::new();
        let begun = Instant::now();
        let mut said = false;
        loop {
            let failure = match self.attempt(call).await {
                Err(failure) if failure.may_pass() => failure,
                end => return end,
            };
            let Some(wait) = patience.after_failure(Instant::now()) else { return Err(failure) };
            if !said && begun.elapsed() > SILENCE + call.wait {
                said = true;
                output::note(&format_args!("{failure}; trying again for up to 30 s"));
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self, call: &Call) -> Result<String, ClientError> {
        let mut request = self
            .client
            .request(call.method.clone(), call.url.clone())
            .timeout(ANSWER_TIME + call.wait)
            .body(call.body.clone());
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let unreachable = |cause| ClientError::Unreachable { url: self.base.to_string(), cause };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        // An orchestrator that dies while it answers leaves half a body.
        let text = answer.text().await.map_err(unreachable)?;
        if status.is_success() {
            Ok(text)
        } else {
            Err(ClientError::Refused(Refused::new(status.as_u16(), &text)))
        }
    }
}

fn authorization(token: Option<&str>) -> Result<HeaderMap, Exit> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        // The text of the error would not show it, but nothing here depends on that.
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Exit::usage("the token is no text that can be sent"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Gives each connection one of the answers, then sends no more; returns what was asked.
    async fn serve(listener: TcpListener, answers: &[&str]) -> Vec<String> {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.expect("a request");
            asked.push(String::from_utf8_lossy(&request[..n]).into_owned());
            stream.write_all(answer.as_bytes()).await.expect("a reader");
        }
        asked
    }

    async fn exchange(answers: &[&str]) -> (Result<String, ClientError>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let http = Http::new(&base, Some("secret-token")).expect("a valid URL");
        assert!(!format!("{http:?}").contains("secret-token"), "{http:?}");
        let call = Call {
            method: Method::POST,
            url: http.base.join("/v1/tasks").expect("a path"),
            headers: vec![("idempotency-key", "k1".to_owned())],
            body: b"body".to_vec(),
            wait: Duration::ZERO,
        };
        tokio::join!(http.send(&call), serve(listener, answers))
    }

    #[tokio::test]
    async fn a_request_survives_dying_servers() {
        let (end, asked) = exchange(&[
            "",
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok",
        ])
        .await;
        assert_eq!(end.expect("an answer in the end"), "ok");
        assert_eq!(asked.len(), 4);
        for request in asked {
            assert!(request.contains("idempotency-key: k1"), "{request}");
            assert!(request.contains("authorization: Bearer secret-token"), "{request}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_final() {
        let body = r#"{"code":"TASK_ENDED","detail":"over"}"#;
        let answer =
            format!("HTTP/1.1 409 Conflict\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (end, _) = exchange(&[&answer]).await;
        let error = end.expect_err("a refusal");
        assert!(error.is(tasker_messages::code::TASK_ENDED), "{error}");
    }

    #[test]
    fn tokens_that_no_header_holds() {
        let error = Http::new("http://h", Some("a\nb: c")).expect_err("refused").to_string();
        assert!(!error.contains("b: c"), "{error}");
    }

    #[test]
    fn only_plain_http() {
        for bad in ["https://h", "h:1", "mailto:a@b", "", "http://"] {
            assert!(Http::new(bad, None).is_err(), "{bad}");
        }
    }
}
