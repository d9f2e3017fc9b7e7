use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tasker_sdk::testing::{TestContext, TestContextBuilder};
use tasker_sdk::{StepError, code};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::support::handler;

/// A service of three pages whose second one fails as often as it is told to.
struct Service {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    async fn start(mut failures: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("it listens"));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let record = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut lines = BufReader::new(&mut stream).lines();
                let mut head = Vec::new();
                while let Ok(Some(line)) = lines.next_line().await
                    && !line.is_empty()
                {
                    head.push(line);
                }
                let target = head[0].split(' ').nth(1).expect("a target").to_owned();
                let (status, page) = page(&target, &mut failures);
                record.lock().expect("no panic").push(target);
                let answer = format!(
                    "HTTP/1.1 {status} Whatever\r\nconnection: close\r\n\
                     content-length: {}\r\n\r\n{page}",
                    page.len()
                );
                stream.write_all(answer.as_bytes()).await.expect("the client waits");
            }
        });
        Self { url, asked }
    }

    fn context(&self) -> TestContextBuilder {
        TestContext::builder().input(json!({"path": "list?limit=2"})).config(json!({
            "base_url": self.url, "allow_networks": ["127.0.0.1"], "items": "/items",
            "cursor": "/next", "cursor_parameter": "after", "field": "/took/ms",
        }))
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

fn page(target: &str, failures: &mut u32) -> (u16, String) {
    let item = |ms: Value| json!({"took": {"ms": ms}});
    let body = match target.split_once("after=").map(|(_, after)| after) {
        None => json!({"items": [item(json!(1)), item(json!(20))], "next": "two"}),
        Some("two") if *failures > 0 => {
            *failures -= 1;
            return (503, String::new());
        }
        Some("two") => json!({"items": [item(Value::Null), {}], "next": 3}),
        Some("3") => json!({"items": [item(json!(300))]}),
        Some(_) => json!({"items": [item(json!("a text"))]}),
    };
    (200, body.to_string())
}

async fn run(ctx: TestContextBuilder) -> Result<Value, StepError> {
    Ok(handler("http_fetch.sum").call(ctx.build()).await?.into_value())
}

fn all() -> Value {
    json!({"pages": 3, "items": 5, "without_field": 2, "sum": 321})
}

#[tokio::test]
async fn all_pages_are_added_up() {
    let service = Service::start(0).await;
    assert_eq!(run(service.context()).await, Ok(all()));
    let list = ["", "&after=two", "&after=3"].map(|after| format!("/v1/list?limit=2{after}"));
    assert_eq!(service.asked(), list);
}

#[tokio::test]
async fn a_later_attempt_goes_on_with_the_page_that_failed() {
    let service = Service::start(1).await;
    let test = service.context().build_observed();
    let error = handler("http_fetch.sum").call(test.ctx()).await.expect_err("503");
    assert_eq!((error.code(), error.is_retryable()), (code::API_STATUS_RETRYABLE, true));
    let stored = test.checkpoints().pop().expect("of the first page");
    assert_eq!(service.asked().len(), 2);
    assert_eq!(run(service.context().attempt(2, 1).checkpoint(stored)).await, Ok(all()));
    assert_eq!(service.asked(), ["/v1/list?limit=2&after=two", "/v1/list?limit=2&after=3"]);
}

#[tokio::test]
async fn what_is_refused() {
    let service = Service::start(0).await;
    let path = |path: &str| service.context().input(json!({"path": path}));
    let mut closed = service.context().build().config().clone();
    closed["allow_networks"] = json!([]);
    let table = [
        (path("list?after=text"), code::RESULT_SHAPE),
        (path("../admin"), code::API_URL_INVALID),
        (path("http://169.254.169.254/latest/meta-data/"), code::API_ADDRESS_REFUSED),
        (service.context().config(closed), code::API_ADDRESS_REFUSED),
        (service.context().config(json!({"base_url": service.url})), code::CONFIG_INVALID),
    ];
    for (n, (ctx, expect)) in table.into_iter().enumerate() {
        let error = run(ctx).await.expect_err("refused");
        assert_eq!((error.code(), error.is_retryable()), (expect, false), "{n}: {error}");
    }
    assert_eq!(service.asked(), ["/v1/list?after=text"]);
}
