//! Handlers that do what handlers should not do, for tests of the cluster around them.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tasker_sdk::{HandlerRegistry, StepContext, StepError, StepResult};

mod gauge;
mod methods;
mod scripted;
mod slow_batch;

pub(crate) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("faulty.panic", panic_always)
        .register("faulty.large_result", return_large_result)
        .register("faulty.nul_result", return_nul)
        .register("faulty.sleep", sleep)
        .register("faulty.fail_twice_then_succeed", fail_twice_then_succeed)
        .register("faulty.always_fail", always_fail)
        .register("faulty.fail_permanently", fail_permanently)
        .register("faulty.abort", abort)
        .register("faulty.return_context", return_context)
        .merge(gauge::handlers())
        .merge(methods::handlers())
        .merge(scripted::handlers())
        .merge(slow_batch::handlers())
}

/// The code of errors made on purpose.
const ON_PURPOSE: &str = "FAILED_ON_PURPOSE";

async fn panic_always(_: StepContext) -> Result<StepResult, StepError> {
    panic!("a panic on purpose")
}

/// Returns a text of 10 MB.
async fn return_large_result(_: StepContext) -> Result<StepResult, StepError> {
    Ok(json!({"text": "x".repeat(10_000_000)}).into())
}

async fn return_nul(_: StepContext) -> Result<StepResult, StepError> {
    Ok(json!({"text": "before\0after"}).into())
}

#[derive(Deserialize)]
struct Sleep {
    /// How long to sleep.
    #[serde(default = "five_seconds")]
    sleep_ms: u64,
}

fn five_seconds() -> u64 {
    5_000
}

async fn sleep(ctx: StepContext) -> Result<StepResult, StepError> {
    let Sleep { sleep_ms } = ctx.input()?;
    tokio::time::sleep(Duration::from_millis(sleep_ms)).await;
    Ok(json!({"slept_ms": sleep_ms}).into())
}

async fn fail_twice_then_succeed(ctx: StepContext) -> Result<StepResult, StepError> {
    if ctx.tries() < 2 {
        let message = format!("failure {} of 2 on purpose", ctx.tries() + 1);
        return Err(StepError::retryable(ON_PURPOSE, message));
    }
    Ok(json!({"attempt": ctx.attempt(), "tries": ctx.tries()}).into())
}

async fn always_fail(ctx: StepContext) -> Result<StepResult, StepError> {
    let message = format!("failure {} on purpose", ctx.tries() + 1);
    Err(StepError::retryable(ON_PURPOSE, message))
}

async fn fail_permanently(_: StepContext) -> Result<StepResult, StepError> {
    Err(StepError::permanent(ON_PURPOSE, "a permanent failure on purpose")
        .with_context(json!({"hint": "none"})))
}

#[derive(Deserialize)]
struct Abort {
    /// Whether to take the worker's process down.
    #[serde(default)]
    abort: bool,
    /// Later attempts do not.
    #[serde(default = "any_attempt")]
    last_attempt: u32,
}

fn any_attempt() -> u32 {
    u32::MAX
}

async fn abort(ctx: StepContext) -> Result<StepResult, StepError> {
    let Abort { abort, last_attempt } = ctx.input()?;
    if abort && ctx.attempt() <= last_attempt {
        std::process::abort();
    }
    Ok(json!({"attempt": ctx.attempt(), "tries": ctx.tries()}).into())
}

/// Returns `result` of the context as it is: any outcome of a batchable step, for example.
async fn return_context(ctx: StepContext) -> Result<StepResult, StepError> {
    Ok(ctx.input_json().get("result").cloned().unwrap_or(Value::Null).into())
}
