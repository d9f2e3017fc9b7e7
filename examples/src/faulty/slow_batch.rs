use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tasker_sdk::{
    Batchable, CursorRange, FanIn, HandlerRegistry, MemberResult, MemberResultExt, StepContext,
    StepError, StepHandler, StepResult, StreamingAggregator, run_streaming,
};

use super::ON_PURPOSE;

/// The step of the template that the ranges are for.
const WORKER_TEMPLATE: &str = "work_slowly";

pub(super) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("faulty.slow_split", SlowSplit)
        .register("faulty.slow_work", SlowWork)
        .register("faulty.slow_sum", SlowSum)
}

/// The context of the task.
#[derive(Deserialize)]
struct Input {
    /// How many members.
    n: u32,
    /// How long each member takes.
    #[serde(default)]
    sleep_ms: u64,
    /// How long the analyzer takes.
    #[serde(default)]
    analyzer_sleep_ms: u64,
    /// Members, 0-based, that fail for good.
    #[serde(default)]
    fail: Vec<u64>,
    /// Members, 0-based, whose first attempt fails.
    #[serde(default)]
    fail_once: Vec<u64>,
}

/// Makes `n` members.
struct SlowSplit;

impl Batchable for SlowSplit {}

impl StepHandler for SlowSplit {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let Input { n, analyzer_sleep_ms, .. } = ctx.input()?;
        tokio::time::sleep(Duration::from_millis(analyzer_sleep_ms)).await;
        if n == 0 {
            return self.no_batches_outcome("n is 0", Value::Null);
        }
        let range = CursorRange { start: 0, end: n.into(), batch_size: 1 };
        self.batch_range_success(WORKER_TEMPLATE, range, n.into(), Value::Null)
    }
}

/// Sleeps, then returns its number or fails.
struct SlowWork;

impl Batchable for SlowWork {}

impl StepHandler for SlowWork {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        if let Some(result) = self.handle_no_op_worker(&ctx) {
            return Ok(result);
        }
        let value = self.get_batch_context(&ctx)?.start_position()?;
        let input: Input = ctx.input()?;
        tokio::time::sleep(Duration::from_millis(input.sleep_ms)).await;
        if input.fail.contains(&value) {
            let message = format!("member {value} fails on purpose");
            return Err(StepError::permanent(ON_PURPOSE, message));
        }
        if input.fail_once.contains(&value) && ctx.tries() == 0 {
            let message = format!("member {value} fails once on purpose");
            return Err(StepError::retryable(ON_PURPOSE, message));
        }
        Ok(json!({"value": value, "attempt": ctx.attempt()}).into())
    }
}

/// Adds up the numbers of the members that succeeded.
struct SlowSum;

impl StepHandler for SlowSum {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        run_streaming(&ctx, self).await
    }
}

#[derive(Deserialize)]
struct Worked {
    value: u64,
}

impl StreamingAggregator for SlowSum {
    type Acc = u64;

    fn fold(&self, sum: &mut u64, member: &MemberResult) -> Result<(), StepError> {
        let value = member.result_as::<Worked>()?.map_or(0, |worked| worked.value);
        *sum = sum.saturating_add(value);
        Ok(())
    }

    fn finish(&self, sum: u64, fan_in: &FanIn) -> Result<StepResult, StepError> {
        Ok(json!({
            "sum": sum,
            "succeeded": fan_in.succeeded,
            "failed": fan_in.failed,
            "worker_count": fan_in.worker_count,
        })
        .into())
    }
}
