use serde_json::json;

use super::server::{Reply, Server};
use crate::{ApiClient, StepError, code};

const REFUSED: (&str, bool) = (code::API_ADDRESS_REFUSED, false);

fn told(error: &StepError) -> (&str, bool) {
    (error.code(), error.is_retryable())
}

#[tokio::test]
async fn loopback_in_all_spellings() {
    let server = Server::start(|_| Reply::json(&json!("inside"))).await;
    let port = server.port();
    let client = ApiClient::builder().build().expect("a client");
    let hosts = [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "①②⑦.0.0.1",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
    ];
    for host in hosts {
        let error = client.get(&format!("http://{host}:{port}/")).await.expect_err(host);
        assert_eq!(told(&error), REFUSED, "{host}: {error}");
    }
    for url in ["http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[fd00::1]/"]
    {
        assert_eq!(told(&client.get(url).await.expect_err(url)), REFUSED, "{url}");
    }
    assert_eq!(server.log(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_allowed() {
    let server = Server::start(|_| Reply::json(&json!("inside"))).await;
    let port = server.port();
    let builder = ApiClient::builder;
    // (what is allowed, what is asked for, whether it answers)
    let table = [
        (builder().allow_host("localhost"), "localhost", true),
        (builder().allow_host("LocalHost."), "localhost", true),
        (builder().allow_host("localhost"), "127.0.0.1", false),
        (builder().allow_host("127.0.0.1"), "127.0.0.1", true),
        (builder().allow_host("127.0.0.1"), "2130706433", true),
        (builder().allow_host("127.0.0.1"), "localhost", false),
        (builder().allow_network("127.0.0.0/8"), "localhost", true),
        (builder().allow_network("127.0.0.1"), "127.0.0.1", true),
        (builder().allow_network("127.0.0.2/32"), "127.0.0.1", false),
        (builder().allow_network("10.0.0.0/8"), "localhost", false),
    ];
    for (builder, host, expect) in table {
        let answer = builder.build().expect("a client").get(&format!("http://{host}:{port}/"));
        let answer = answer.await;
        assert_eq!(answer.is_ok(), expect, "{host}: {answer:?}");
        if let Err(error) = answer {
            assert_eq!(told(&error), REFUSED, "{host}");
        }
    }
    assert_eq!(server.log().len(), 6);
}

#[tokio::test]
async fn what_a_refusal_tells() {
    let client = ApiClient::builder().build().expect("a client");
    let failure = client.post("http://localhost:1/x?key=canary").await.expect_err("refused");
    let failure = failure.into_failure();
    let url = "http://localhost:1/x?key=***";
    let message = "`localhost` is not at a public address; `allow_host` or `allow_network` of the \
                   client lets it through";
    assert_eq!(failure.message, format!("POST {url}: {message}"));
    assert_eq!(failure.context, json!({"method": "POST", "url": url}));
}

#[tokio::test]
async fn redirections_are_checked_as_well() {
    let inside = Server::start(|_| Reply::json(&json!("inside"))).await;
    let port = inside.port();
    let targets = [
        format!("http://127.0.0.2:{port}/"),
        format!("http://2130706434:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.2]:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "file:///etc/passwd".to_owned(),
        format!("ftp://127.0.0.1:{port}/"),
    ];
    for target in targets {
        let location = target.clone();
        let server = Server::start(move |_| Reply::redirect(302, &location)).await;
        // The address of the servers is allowed, and no other one.
        let client = server.client().build().expect("a client");
        assert_eq!(told(&client.get("").await.expect_err(&target)), REFUSED, "{target}");
        assert_eq!(server.log(), ["GET /"], "{target}");
    }
    assert_eq!(inside.log(), Vec::<String>::new());

    let location = format!("http://localhost:{port}/");
    let server = Server::start(move |_| Reply::redirect(302, &location)).await;
    let by_host = ApiClient::builder().allow_host("127.0.0.1").base_url(server.url(""));
    let error = by_host.build().expect("a client").get("").await.expect_err("another host");
    assert_eq!(told(&error), REFUSED);
    let by_network = server.client().build().expect("a client");
    assert_eq!(by_network.get("").await.expect("allowed").json(), Ok(json!("inside")));
}
