use serde_json::{Value, json};

use super::server::{Asked, Reply, Server};
use crate::testing::TestContext;
use crate::{Api, ApiClient, StepContext, StepError, code};

struct Handler(ApiClient);

impl Api for Handler {
    fn api_client(&self, _: &StepContext) -> Result<ApiClient, StepError> {
        Ok(self.0.clone())
    }
}

fn key(asked: &Asked) -> (String, Option<String>) {
    (asked.method.clone(), asked.header("idempotency-key").map(str::to_owned))
}

async fn server() -> (Server, Handler) {
    let server = Server::start(|asked| match asked.target.as_str() {
        "/fails" => Reply::of(500, "", ""),
        _ => Reply::json(&Value::Null),
    })
    .await;
    let handler = Handler(server.client().build().expect("a client"));
    (server, handler)
}

#[tokio::test]
async fn which_requests_carry_the_key() {
    let (server, handler) = server().await;
    let ctx = TestContext::builder().build();
    let step = ctx.idempotency_key();
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"] {
        handler.request(&ctx, method, "").await.expect("200");
    }
    handler.post(&ctx, "").idempotency_part("line 7").await.expect("200");
    handler.post(&ctx, "").idempotency_part(8).await.expect("200");
    handler.patch(&ctx, "").header("idempotency-key", "own").await.expect("200");
    handler.0.post("").await.expect("200");
    handler.put(&ctx, "").await.expect("200");
    handler.get(&ctx, "").await.expect("200");
    handler.delete(&ctx, "").await.expect("200");
    let got: Vec<_> = server.asked().iter().map(key).collect();
    let none = |method: &str| (method.to_owned(), None);
    let some = |method: &str, key: String| (method.to_owned(), Some(key));
    let expect = [
        none("GET"),
        none("HEAD"),
        none("OPTIONS"),
        none("PUT"),
        none("DELETE"),
        some("PATCH", step.clone()),
        some("POST", format!("{step}-line 7")),
        some("POST", format!("{step}-8")),
        some("PATCH", "own".to_owned()),
        none("POST"),
        none("PUT"),
        none("GET"),
        none("DELETE"),
    ];
    assert_eq!(got, expect);
}

#[tokio::test]
async fn one_key_is_for_one_effect() {
    let (server, handler) = server().await;
    let ctx = TestContext::builder().attempt(1, 0).build();
    for _ in 0..2 {
        let error = handler.post(&ctx, "fails").await.expect_err("500");
        assert_eq!(error.code(), code::API_STATUS_RETRYABLE, "a failed one may be tried again");
    }
    handler.post(&ctx, "works").await.expect("200");
    for request in [handler.post(&ctx, "works"), handler.patch(&ctx, "other")] {
        let error = request.await.expect_err("the key is used up");
        assert_eq!((error.code(), error.is_retryable()), (code::API_REQUEST_INVALID, false));
    }
    handler.post(&ctx, "works").idempotency_part("second").await.expect("200");
    // Another attempt does the same again, under the same key.
    let again = TestContext::builder().attempt(2, 1).build();
    handler.post(&again, "works").await.expect("200");

    assert_eq!(
        server.log(),
        ["POST /fails", "POST /fails", "POST /works", "POST /works", "POST /works"]
    );
    let keys: Vec<_> = server.asked().iter().filter_map(|asked| key(asked).1).collect();
    let step = ctx.idempotency_key();
    let second = format!("{step}-second");
    assert_eq!(keys, [step.as_str(), &step, &step, &second, &step]);
}

#[tokio::test]
async fn a_client_that_cannot_be_made_fails_the_request() {
    struct Broken;
    impl Api for Broken {
        fn api_client(&self, ctx: &StepContext) -> Result<ApiClient, StepError> {
            ApiClient::builder().base_url(ctx.config()["url"].as_str().unwrap_or("")).build()
        }
    }
    let ctx = TestContext::builder().config(json!({"url": "nowhere"})).build();
    let error = Broken.get(&ctx, "x").await.expect_err("no client");
    assert_eq!((error.code(), error.is_retryable()), (code::API_URL_INVALID, false));
}
