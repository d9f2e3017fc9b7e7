use serde_json::json;

use super::server::{Asked, Reply, Server};
use crate::{Secret, code};

fn sent(asked: &Asked) -> [Option<&str>; 3] {
    ["authorization", "x-team", "x-own"].map(|name| asked.header(name))
}

#[tokio::test]
async fn credentials_stay_at_their_origin() {
    let other = Server::start(|_| Reply::json(&json!("there"))).await;
    let elsewhere = other.url("/landed");
    let server = Server::start(move |asked| match asked.target.as_str() {
        "/away" => Reply::redirect(302, &elsewhere),
        "/near" => Reply::redirect(302, "/here"),
        _ => Reply::json(&json!("here")),
    })
    .await;
    let client = server.client().bearer(Secret::new("t")).header("x-team", "a").build();
    let client = client.expect("a client");
    let get = |path: &str| client.get(path).header("x-own", "b");
    assert_eq!(get("near").await.expect("200").json(), Ok(json!("here")));
    assert_eq!(get("away").await.expect("200").json(), Ok(json!("there")));
    // A whole URL to another origin carries what the caller gave it, nothing of the client.
    assert_eq!(get(&other.url("/direct")).await.expect("200").json(), Ok(json!("there")));

    let here = server.asked();
    assert_eq!(server.log(), ["GET /near", "GET /here", "GET /away"]);
    for asked in &here {
        assert_eq!(sent(asked), [Some("Bearer t"), Some("a"), Some("b")], "{}", asked.target);
    }
    let there = other.asked();
    assert_eq!(other.log(), ["GET /landed", "GET /direct"]);
    assert_eq!(sent(&there[0]), [None, None, None]);
    assert_eq!(sent(&there[1]), [None, None, Some("b")]);
}

#[tokio::test]
async fn credentials_do_not_come_back_from_an_excursion() {
    // The other server knows the first one by what the first one tells it.
    let other = Server::start(|asked| {
        let back = asked.target.strip_prefix("/back?to=").expect("a port");
        Reply::redirect(302, &format!("http://127.0.0.1:{back}/here"))
    })
    .await;
    let port = other.port();
    let server = Server::start(move |asked| match asked.target.as_str() {
        "/here" => Reply::json(&json!("here")),
        _ => {
            let own = asked.header("host").and_then(|host| host.split_once(':')).expect("a port").1;
            Reply::redirect(302, &format!("http://127.0.0.1:{port}/back?to={own}"))
        }
    })
    .await;
    let client = server.client().api_key("x-key", Secret::new("k")).build().expect("a client");
    client.get("away").await.expect("200");
    let keys: Vec<_> =
        server.asked().iter().map(|asked| asked.header("x-key").map(str::to_owned)).collect();
    assert_eq!(keys, [Some("k".to_owned()), None]);
    assert_eq!(other.asked()[0].header("x-key"), None);
}

#[tokio::test]
async fn methods_and_bodies() {
    let server = Server::start(|asked| {
        let status = asked.target.trim_start_matches('/').parse().ok();
        status.map_or_else(|| Reply::json(&json!(1)), |status| Reply::redirect(status, "/end"))
    })
    .await;
    let client = server.client().build().expect("a client");
    // (method, status, method and body at the end)
    let table = [
        ("POST", 301, "GET", ""),
        ("POST", 302, "GET", ""),
        ("POST", 303, "GET", ""),
        ("POST", 307, "POST", "text"),
        ("POST", 308, "POST", "text"),
        ("PUT", 302, "PUT", "text"),
        ("PUT", 303, "GET", ""),
    ];
    for (method, status, end, body) in table {
        let request = client.request(method, &status.to_string()).body("text/plain", "text");
        let request = request.header("idempotency-key", "k");
        request.await.expect("200");
        let last = server.asked().pop().expect("it was asked");
        let got = (last.method.as_str(), last.body.as_str());
        assert_eq!(got, (end, body), "{method} {status}");
        // What belongs to a change goes with it.
        let got = (last.header("content-type"), last.header("idempotency-key"));
        let expect = if body.is_empty() { (None, None) } else { (Some("text/plain"), Some("k")) };
        assert_eq!(got, expect, "{method} {status}");
    }
}

#[tokio::test]
async fn what_is_not_followed() {
    let other = Server::start(|_| Reply::json(&json!("there"))).await;
    let elsewhere = other.url("/");
    let server = Server::start(move |asked| match asked.target.as_str() {
        "/away" => Reply::redirect(307, &elsewhere),
        "/circle" => Reply::redirect(302, "/circle"),
        "/nowhere" => Reply::of(302, "", ""),
        "/odd" => Reply::redirect(302, "http://[/"),
        "/user" => Reply::redirect(302, "http://user:canary@127.0.0.1/"),
        _ => Reply::redirect(304, "/end"),
    })
    .await;
    let client = server.client().max_redirects(3).build().expect("a client");
    let table = [
        (client.post("away").body("text/plain", "text"), code::API_REDIRECT_REFUSED, 1),
        (client.get("circle"), code::API_REDIRECT_REFUSED, 4),
        (client.get("nowhere"), code::API_REDIRECT_REFUSED, 1),
        (client.get("other"), code::API_REDIRECT_REFUSED, 1),
        (client.get("odd"), code::API_URL_INVALID, 1),
        (client.get("user"), code::API_URL_INVALID, 1),
    ];
    let mut asked = 0;
    for (request, code, requests) in table {
        let shown = format!("{request:?}");
        let failure = request.await.expect_err("not followed").into_failure();
        assert_eq!((failure.code.as_str(), failure.retryable), (code, false), "{shown}");
        assert!(failure.context["status"].is_u64(), "{shown}: {failure:?}");
        assert!(!format!("{failure:?}").contains("canary"));
        asked += requests;
        assert_eq!(server.log().len(), asked, "{shown}");
    }
    assert_eq!(other.log(), Vec::<String>::new());
    let accepted = client.get("circle").accept_status(302).await.expect("an answer");
    assert_eq!((accepted.status(), accepted.header("location")), (302, Some("/circle")));
    assert_eq!(server.log().len(), asked + 1);
}
