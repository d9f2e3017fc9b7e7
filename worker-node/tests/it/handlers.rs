//! What handlers do, and what is reported of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tasker_messages::{Refusal, code};
use tasker_sdk::{HandlerRegistry, StepContext, StepError, StepResult};

use crate::fake::{Fake, ending, member_part, part};

async fn echo(ctx: StepContext) -> Result<StepResult, StepError> {
    let cursor = ctx.step_inputs().map(|inputs| inputs.cursor.start_cursor);
    Ok(cursor.unwrap_or_else(|| ctx.input_json().clone()).into())
}

async fn panics(_: StepContext) -> Result<StepResult, StepError> {
    panic!("on purpose")
}

async fn large(_: StepContext) -> Result<StepResult, StepError> {
    Ok(Value::from("x".repeat(10 << 20)).into())
}

async fn nul(_: StepContext) -> Result<StepResult, StepError> {
    Ok(json!({"a": "b\0c"}).into())
}

async fn sleeps(_: StepContext) -> Result<StepResult, StepError> {
    std::future::pending().await
}

async fn blocks(_: StepContext) -> Result<StepResult, StepError> {
    std::thread::sleep(Duration::from_secs(2));
    Ok(json!("too late").into())
}

async fn permanent(_: StepContext) -> Result<StepResult, StepError> {
    Err(StepError::permanent("MINE", "on purpose"))
}

async fn fails(_: StepContext) -> Result<StepResult, StepError> {
    let _number: u32 = "x".parse()?;
    Ok(Value::Null.into())
}

pub(crate) fn registry() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("echo", echo)
        .register("panics", panics)
        .register("large", large)
        .register("nul", nul)
        .register("sleeps", sleeps)
        .register("blocks", blocks)
        .register("permanent", permanent)
        .register("fails", fails)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mistake_is_an_error_of_its_step_alone() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let worker = fake.worker(registry()).await;
    let table = [
        ("echo", Ok(json!({"a": 1}))),
        ("panics", Err(code::HANDLER_PANIC)),
        ("large", Err(code::RESULT_TOO_LARGE)),
        ("nul", Err(code::RESULT_NOT_STORABLE)),
        ("sleeps", Err(code::HANDLER_TIMEOUT)),
        ("blocks", Err(code::HANDLER_TIMEOUT)),
        ("permanent", Err("MINE")),
        ("fails", Err(code::HANDLER_ERROR)),
        ("missing", Err(code::HANDLER_NOT_FOUND)),
    ];
    let items = table.iter().map(|(callable, _)| {
        let mut item = fake.item(callable, json!({"a": 1}));
        let mut shared = part(callable, json!({"a": 1}));
        shared.timeout_ms = Some(300);
        item.shared = Some(Arc::from(serde_json::value::to_raw_value(&shared).expect("JSON")));
        item
    });
    let items: Vec<_> = items.collect();
    fake.publish(&items).await;
    fake.until("all outcomes", |seen| seen.outcomes().count() >= table.len()).await;
    fake.until_acknowledged().await;
    let retryable = [code::HANDLER_TIMEOUT, code::HANDLER_ERROR, code::HANDLER_NOT_FOUND];
    for ((callable, expect), item) in table.into_iter().zip(&items) {
        let seen = fake.seen();
        let outcome = seen.outcome(item.step_id).expect("reported");
        assert_eq!(ending(outcome), expect.map_err(str::to_owned), "{callable}");
        assert_eq!((outcome.attempt, outcome.dispatch_seq), (1, 1));
        if let tasker_messages::AttemptOutcome::Failed(failure) = &outcome.outcome {
            assert_eq!(failure.retryable, retryable.contains(&failure.code.as_str()), "{callable}");
        }
    }
    worker.stop().await;
    // What blocked its thread came back meanwhile; nobody was interested.
    assert_eq!(fake.seen().outcomes().count(), items.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_steps_share_their_part_and_their_reports() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    let refusals = AtomicU32::new(2);
    fake.seen().part = Box::new(move |_| {
        match refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) {
            Ok(_) => Err(Refusal::retry(code::UNAVAILABLE, "later")),
            Err(_) => Ok(member_part("echo")),
        }
    });
    let worker = fake.worker(registry()).await;
    let items = fake.members(3_000);
    fake.publish(&items).await;
    fake.until("all outcomes", |seen| seen.outcomes().count() >= items.len()).await;
    fake.until_acknowledged().await;
    worker.stop().await;
    let seen = fake.seen();
    assert_eq!(seen.outcomes().count(), items.len());
    assert_eq!(seen.parts.len(), 3, "two refusals, then one answer for all");
    assert!(seen.reports.len() < items.len() / 2, "{} reports", seen.reports.len());
    assert!(seen.most_open <= 4);
    for (n, item) in items.iter().enumerate() {
        assert_eq!(seen.outcome(item.step_id).map(ending), Some(Ok(json!(n))));
    }
}

#[tokio::test]
async fn a_part_that_does_not_exist_fails_the_step() {
    let fake = Fake::start().await;
    fake.open_queue().await;
    fake.seen().part = Box::new(|_| Err(Refusal::new(code::TASK_NOT_FOUND, "no such task")));
    let worker = fake.worker(registry()).await;
    let items = fake.members(1);
    fake.publish(&items).await;
    fake.until("an outcome", |seen| seen.outcome(items[0].step_id).is_some()).await;
    let got = fake.seen().outcome(items[0].step_id).map(ending);
    assert_eq!(got, Some(Err(code::TASK_NOT_FOUND.to_owned())));
    fake.until_acknowledged().await;
    worker.stop().await;
}
