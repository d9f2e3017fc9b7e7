use serde_json::{Value, json};
use tasker_messages::StepFailure;

use super::server::{Reply, Server};
use crate::{ApiRequest, StepError, code};

async fn failure(request: ApiRequest) -> StepFailure {
    request.await.expect_err("no success").into_failure()
}

#[tokio::test]
async fn successes() {
    let server = Server::start(|asked| match asked.target.as_str() {
        "/created" => Reply::of(201, "x-id: 7\r\n", "{\"id\": 7}"),
        "/empty" => Reply::Send("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_owned()),
        "/missing" => Reply::of(404, "", "none"),
        _ => Reply::of(200, "", "\u{e9}"),
    })
    .await;
    let client = server.client().build().expect("a client");

    let created = client.get("created").await.expect("201");
    assert_eq!((created.status(), created.header("X-Id")), (201, Some("7")));
    assert_eq!(created.json().expect("JSON"), json!({"id": 7}));
    let text = client.get("text").await.expect("200");
    assert_eq!((text.text(), text.bytes()), (Ok("\u{e9}"), "\u{e9}".as_bytes()));
    let error = text.json().expect_err("no JSON");
    assert_eq!((error.code(), error.is_retryable()), (code::API_BODY_INVALID, false));
    let empty = client.get("empty").await.expect("204");
    assert_eq!((empty.status(), empty.bytes()), (204, &b""[..]));
    let missing = client.get("missing").accept_status(404).await.expect("accepted");
    assert_eq!((missing.status(), missing.text()), (404, Ok("none")));
}

#[tokio::test]
async fn what_a_request_carries() {
    let server = Server::start(|_| Reply::json(&Value::Null)).await;
    let client = server.client().base_url(server.url("/v1")).header("x-team", "a").build();
    let client = client.expect("a client");
    client.put("/a").query("q", "x y").query("n", 2).json(&json!({"k": 1})).await.expect("200");
    client.post("b").form([("a", "1 2"), ("b", "&")]).header("x-team", "b").await.expect("200");
    client.patch("c").body("text/plain", "hello").await.expect("200");
    client.delete("d").await.expect("200");
    client.request("HEAD", "e").await.expect("200");
    let log = ["PUT /v1/a?q=x+y&n=2", "POST /v1/b", "PATCH /v1/c", "DELETE /v1/d", "HEAD /v1/e"];
    assert_eq!(server.log(), log);
    let carried: Vec<_> = server
        .asked()
        .into_iter()
        .map(|asked| {
            let header = |name: &str| asked.header(name).unwrap_or_default().to_owned();
            (header("content-type"), header("x-team"), asked.body.clone())
        })
        .collect();
    let expect = [
        ("application/json", "a", "{\"k\":1}"),
        ("application/x-www-form-urlencoded", "b", "a=1+2&b=%26"),
        ("text/plain", "a", "hello"),
        ("", "a", ""),
        ("", "a", ""),
    ];
    assert_eq!(carried, expect.map(|(t, h, b)| (t.to_owned(), h.to_owned(), b.to_owned())));
    let agent = format!("tasker-sdk/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(server.asked()[0].header("user-agent"), Some(agent.as_str()));
}

/// The status to answer with stands in the path, a `Retry-After` behind it.
async fn echo_status() -> Server {
    Server::start(|asked| {
        let mut parts = asked.target.split(['/', '?']).skip(1);
        let status = parts.next().expect("a status").parse().expect("a number");
        let pause = parts.next().filter(|text| !text.is_empty() && !text.contains('='));
        let pause = pause.map(|text| format!("retry-after: {}\r\n", text.replace('_', " ")));
        Reply::of(status, &pause.unwrap_or_default(), "{\"why\": \"because\"}")
    })
    .await
}

#[tokio::test]
async fn statuses() {
    let server = echo_status().await;
    let client = server.client().build().expect("a client");
    let again = (code::API_STATUS_RETRYABLE, true, "retryable", None);
    let never = (code::API_STATUS_REFUSED, false, "permanent", None);
    let away = (code::API_REDIRECT_REFUSED, false, "permanent", None);
    let later = |ms: u64| (code::RATE_LIMITED, true, "rate_limited", Some(ms));
    let table = [
        ("400", never),
        ("401", never),
        ("403", never),
        ("404", never),
        ("405", never),
        ("409", never),
        ("410", never),
        ("418", never),
        ("422", never),
        ("451", never),
        ("408", again),
        ("425", again),
        ("429", again),
        ("500", again),
        ("501", again),
        ("502", again),
        ("503", again),
        ("504", again),
        ("599", again),
        ("600", never),
        ("300", away),
        ("302", away),
        ("304", away),
        ("399", away),
        ("429/3", later(3_000)),
        ("503/0", later(0)),
        ("429/999999999", later(86_400_000)),
        ("429/Sun,_06_Nov_1994_08:49:37_GMT", later(0)),
        ("503/Fri,_31_Dec_2100_00:00:00_GMT", later(86_400_000)),
        ("429/soon", again),
        ("503/-1", again),
        ("500/3", again),
        ("404/3", never),
    ];
    for (path, expect) in table {
        let got = failure(client.get(path)).await;
        let got = (got.code.as_str(), got.retryable, got.error_type.as_str(), got.retry_after_ms);
        assert_eq!(got, expect, "{path}");
    }
}

#[tokio::test]
async fn what_an_error_tells() {
    let server = echo_status().await;
    let client = server.client().build().expect("a client");
    let url = server.url("/404?token=***&***");
    let expect = StepFailure {
        code: code::API_STATUS_REFUSED.to_owned(),
        message: format!("DELETE {url}: answered 404 Not Found"),
        retryable: false,
        error_type: "permanent".to_owned(),
        retry_after_ms: None,
        context: json!({
            "method": "DELETE", "url": url, "status": 404, "body": "{\"why\": \"because\"}",
        }),
    };
    assert_eq!(failure(client.delete("404?token=canary&canary#canary")).await, expect);

    let got = failure(client.get("429/3")).await;
    let url = server.url("/429/3");
    assert_eq!(got.message, format!("GET {url}: rate limited, to be tried again in 3s"));
    assert_eq!(got.context["status"], 429);
}

#[tokio::test]
async fn a_date_to_come_is_a_pause() {
    let date = std::time::SystemTime::now() + std::time::Duration::from_secs(100);
    let date = httpdate::fmt_http_date(date);
    let reply = move |_: &_| Reply::of(503, &format!("retry-after: {date}\r\n"), "");
    let server = Server::start(reply).await;
    let got = failure(server.client().build().expect("a client").get("")).await;
    let pause = got.retry_after_ms.expect("a pause");
    // A date has seconds, and the test takes some time.
    assert!((30_000..=100_000).contains(&pause), "{pause}");
}

#[tokio::test]
async fn only_the_beginning_of_a_body_is_told() {
    let server = Server::start(|_| Reply::of(400, "", &"x".repeat(100_000))).await;
    let got = failure(server.client().build().expect("a client").get("")).await;
    assert_eq!(got.context["body"], "x".repeat(1_024));
}

#[tokio::test]
async fn requests_that_make_no_sense() {
    let server = Server::start(|_| Reply::json(&Value::Null)).await;
    let client = server.client().build().expect("a client");
    let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
    let table = [
        client.request("CONNECT", ""),
        client.request("TRACE", ""),
        client.request("GE T", ""),
        client.get("").header("x y", "1"),
        client.get("").header("x", "1\r\ny: 2"),
        client.post("").json(&unwritable),
        client.post("").body("a\nb", ""),
        client.post("").idempotency_part("1"),
    ];
    for request in table {
        let shown = format!("{request:?}");
        let error: StepError = request.await.expect_err("it makes no sense");
        assert_eq!(
            (error.code(), error.is_retryable()),
            (code::API_REQUEST_INVALID, false),
            "{shown}"
        );
    }
    assert_eq!(server.log(), Vec::<String>::new());
}
