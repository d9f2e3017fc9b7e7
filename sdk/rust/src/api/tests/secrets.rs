use serde_json::{Value, json};

use super::server::{Reply, Server};
use crate::{ApiClientBuilder, ApiRequest, Secret, StepError};

const CANARY: &str = "canary-\"5f2c\"";

fn shows(text: &str) -> bool {
    // The middle of it, too: quotes are escaped in some places.
    text.contains("canary") || text.contains("5f2c") || text.contains("Y2FuYXJ5")
}

/// A service that sends everything back that it was sent.
async fn echo() -> Server {
    Server::start(|asked| {
        let sent = asked.header("authorization").or_else(|| asked.header("x-key"));
        let body = json!({"you sent": sent, "to": asked.target}).to_string();
        match asked.target.split('?').next() {
            Some("/ok") => Reply::of(200, "", &body),
            Some("/text") => Reply::json(&json!(sent)),
            Some("/moved") => {
                Reply::redirect(302, &format!("ftp://x/{}", sent.unwrap_or_default()))
            }
            Some("/large") => Reply::of(200, "", &body.repeat(1_000)),
            Some("/raw") => Reply::of(400, "", sent.unwrap_or_default()),
            _ => Reply::of(403, "", &body),
        }
    })
    .await
}

async fn failures(builder: ApiClientBuilder) -> Vec<StepError> {
    let client = builder.max_body_bytes(4_096).build().expect("a client");
    assert!(!shows(&format!("{client:?}")), "{client:?}");
    let with_key = |path: &str| client.get(path).query("key", CANARY);
    let requests: Vec<ApiRequest> = ["refused", "raw", "moved", "large", "canary-%225f2c%22"]
        .into_iter()
        .map(with_key)
        .collect();
    let mut failures = Vec::new();
    for request in requests {
        assert!(!shows(&format!("{request:?}").replace("canary-%225f2c%22", "")), "{request:?}");
        failures.push(request.await.expect_err("an error"));
    }
    let answer = with_key("ok").await.expect("200");
    assert!(!shows(&format!("{answer:?}")), "{answer:?}");
    assert!(answer.text().is_ok_and(|text| text.contains("key=canary")), "it was sent");
    failures.push(answer.json_as::<u8>().expect_err("an object"));
    // This error would repeat the text that it does not expect.
    failures.push(with_key("text").await.expect("200").json_as::<u8>().expect_err("a text"));
    failures
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    let server = echo().await;
    let secret = || Secret::new(CANARY);
    let clients = [
        server.client().bearer(secret()),
        server.client().basic("canary-\"5f2c\"-user", secret()),
        server.client().api_key("x-key", secret()),
    ];
    for (n, builder) in clients.into_iter().enumerate() {
        let own = failures(builder).await;
        assert_eq!(own.len(), 7);
        for error in own {
            let failure = error.clone().into_failure();
            let all = format!("{error} {error:?} {} {:?}", failure.message, failure.context);
            let all = if n == 1 { all.replace("canary-\"5f2c\"-user", "") } else { all };
            assert!(!shows(&all), "{n}: {all}");
        }
    }
    let asked = server.asked();
    assert!(asked.iter().all(|asked| asked.headers.values().any(|value| value.len() > 12)));
    assert!(asked.iter().any(|asked| asked.header("authorization").is_some_and(shows)));
}

#[tokio::test]
async fn what_is_left_of_an_echo() {
    let server = echo().await;
    let client = server.client().bearer(Secret::new(CANARY)).build().expect("a client");
    let failure = client.get("refused").await.expect_err("403").into_failure();
    let body: Value = serde_json::from_str(failure.context["body"].as_str().expect("a text"))
        .expect("still JSON");
    assert_eq!(body, json!({"you sent": "Bearer ***", "to": "/refused"}));
}

#[test]
fn secrets_that_cannot_be_sent_are_not_shown_either() {
    for secret in ["canary\n", "canary\u{7f}"] {
        let builder = crate::ApiClient::builder().base_url("http://h/").bearer(Secret::new(secret));
        let error = builder.build().expect_err("no header");
        assert!(!shows(&format!("{error} {error:?}")), "{error:?}");
    }
}
