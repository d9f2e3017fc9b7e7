use std::time::Duration;

use std::future::IntoFuture;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::server::{Reply, Server};
use crate::testing::TestContext;
use crate::{ApiClient, StepError, code};

/// Short enough to wait for; nothing else in these tests takes any time.
const SHORT: Duration = Duration::from_millis(100);

fn told(error: &StepError) -> (&str, bool) {
    (error.code(), error.is_retryable())
}

#[tokio::test]
async fn a_service_that_does_not_answer() {
    let silences = [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ];
    for silence in silences {
        let server = Server::start(|_| Reply::Stall(silence.to_owned())).await;
        let client = server.client().timeout(SHORT).build().expect("a client");
        let error = client.get("slow").await.expect_err("no answer");
        let failure = error.into_failure();
        let got = (failure.code.as_str(), failure.retryable, failure.error_type.as_str());
        assert_eq!(got, (code::API_TIMEOUT, true, "timeout"), "{silence:?}");
        assert_eq!(failure.context, json!({"method": "GET", "url": server.url("/slow")}));
    }
}

#[tokio::test]
async fn a_status_is_told_even_if_its_body_does_not_come() {
    let stall = "HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nabc";
    let server = Server::start(|_| Reply::Stall(stall.to_owned())).await;
    let client = server.client().timeout(SHORT).build().expect("a client");
    let failure = client.get("").await.expect_err("a status").into_failure();
    assert_eq!(failure.code, code::API_STATUS_REFUSED);
    assert_eq!(
        (&failure.context["status"], &failure.context["body"]),
        (&json!(404), &json!("abc"))
    );
}

#[tokio::test]
async fn a_connection_that_is_not_made_in_time() {
    // Accepts, and never says a word of TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    // Long enough for the shorter time to pass first, whatever else the machine does.
    let client = ApiClient::builder().allow_network("127.0.0.1").timeout(20 * SHORT);
    let client = client.connect_timeout(SHORT).build().expect("a client");
    let error = client.get(&format!("https://{address}/")).await.expect_err("no connection");
    assert_eq!(told(&error), (code::API_TIMEOUT, true));
    assert!(error.message().contains("no connection within 100ms"), "{error}");
}

#[tokio::test]
async fn connections_that_break() {
    let broken = ["", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", "SSH-2.0-x\r\n\r\n"];
    for answer in broken {
        let server = Server::start(|_| Reply::Send(answer.to_owned())).await;
        let client = server.client().build().expect("a client");
        let error = client.get("").await.expect_err("no answer");
        assert_eq!(told(&error), (code::API_UNREACHABLE, true), "{answer:?}");
    }
    let gone = Server::start(|_| Reply::json(&Value::Null)).await;
    let client = gone.client().build().expect("a client");
    // Nobody listens on a port that was given back.
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = free.local_addr().expect("it listens").port();
    drop(free);
    let error = client.get(&format!("http://127.0.0.1:{port}/")).await.expect_err("nobody there");
    assert_eq!(told(&error), (code::API_UNREACHABLE, true));
    assert!(error.message().contains("refused"), "{error}");
    // Longer than a name can be, so that no server is asked for it.
    let nameless = format!("http://{}.example/", "a".repeat(64));
    let error = client.get(&nameless).await.expect_err("nobody there");
    assert_eq!(told(&error), (code::API_UNREACHABLE, true));
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let chunked = |parts: &[&str]| {
        let parts = parts.iter().map(|part| format!("{:x}\r\n{part}\r\n", part.len()));
        let body: String = parts.collect();
        Reply::Send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}0\r\n\r\n"))
    };
    let server = Server::start(move |asked| match asked.target.as_str() {
        "/fits" => Reply::of(200, "", "0123456789"),
        "/chunked-fits" => chunked(&["01234", "56789"]),
        "/chunked" => chunked(&["01234", "56789", "a"]),
        "/unending" => Reply::Stall("HTTP/1.1 200 OK\r\n\r\n0123456789a".to_owned()),
        // Were it read, the test would wait for what does not come.
        _ => Reply::Stall("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n".to_owned()),
    })
    .await;
    let client = server.client().max_body_bytes(10).build().expect("a client");
    for path in ["fits", "chunked-fits"] {
        assert_eq!(client.get(path).await.expect("it fits").text(), Ok("0123456789"), "{path}");
    }
    for (path, body) in [("chunked", "0123456789"), ("unending", "0123456789"), ("declared", "")] {
        let failure = client.get(path).await.expect_err("too large").into_failure();
        assert_eq!((failure.code.as_str(), failure.retryable), (code::API_BODY_TOO_LARGE, false));
        let context = json!({
            "method": "GET", "url": server.url(&format!("/{path}")), "status": 200, "body": body,
        });
        assert_eq!(failure.context, context);
    }
}

#[tokio::test]
async fn a_step_that_should_stop_waits_for_nothing() {
    let server = Server::start(|_| Reply::Stall(String::new())).await;
    let client = server.client().build().expect("a client");
    let test = TestContext::builder().build_observed();
    let request = client.get("").for_step(&test.ctx()).into_future();
    test.cancel();
    assert_eq!(told(&request.await.expect_err("cancelled")), (code::CANCELLED, true));
}

#[test]
fn clients_that_make_no_sense() {
    let builder = ApiClient::builder;
    let table = [
        (builder().timeout(Duration::ZERO), code::API_REQUEST_INVALID),
        (builder().timeout(Duration::MAX), code::API_REQUEST_INVALID),
        (builder().connect_timeout(Duration::ZERO), code::API_REQUEST_INVALID),
        (builder().bearer(crate::Secret::new("t")), code::API_REQUEST_INVALID),
        (builder().header("a", "b"), code::API_REQUEST_INVALID),
        (builder().base_url("http://h/").header("a b", "c"), code::API_REQUEST_INVALID),
        (builder().base_url("http://h/").header("a", "b\nc"), code::API_REQUEST_INVALID),
        (builder().allow_network("everything"), code::API_REQUEST_INVALID),
        (builder().root_certificates_pem("none"), code::API_REQUEST_INVALID),
        (builder().base_url("h"), code::API_URL_INVALID),
        (builder().base_url("file:///etc"), code::API_ADDRESS_REFUSED),
    ];
    for (n, (builder, expect)) in table.into_iter().enumerate() {
        assert_eq!(told(&builder.build().expect_err("no sense")), (expect, false), "{n}");
    }
}
