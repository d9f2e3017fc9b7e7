//! Handlers of the benchmarks: they only add integers, so that what is measured is not theirs.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tasker_sdk::{
    Batchable, CursorRange, FanIn, HandlerRegistry, MemberResult, MemberResultExt, StepContext,
    StepError, StepHandler, StepResult, StreamingAggregator, run_streaming,
};

use crate::synthetic::{AGGREGATION_MISMATCH, sum_below};

/// The step of the template that the ranges are for.
const WORKER_TEMPLATE: &str = "add_one";

pub(crate) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("bench.make_ranges", MakeRanges)
        .register("bench.add_one", AddOne)
        .register("bench.sum_up", SumUp)
        .register("bench.chain_first", chain_first)
        .register("bench.chain_next", chain_next)
}

/// The context of a `fan_out` task.
#[derive(Deserialize)]
struct FanOut {
    n: u32,
}

/// Makes `n` ranges of one item.
struct MakeRanges;

impl Batchable for MakeRanges {}

impl StepHandler for MakeRanges {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let n = ctx.input::<FanOut>()?.n.into();
        if n == 0 {
            return self.no_batches_outcome("n is 0", Value::Null);
        }
        let range = CursorRange { start: 0, end: n, batch_size: 1 };
        self.batch_range_success(WORKER_TEMPLATE, range, n, Value::Null)
    }
}

/// Returns its number, after a sleep if the task asks for one.
struct AddOne;

impl Batchable for AddOne {}

impl StepHandler for AddOne {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        if let Some(result) = self.handle_no_op_worker(&ctx) {
            return Ok(result);
        }
        if let Some(ms) =
            ctx.input_json().get("sleep_ms").and_then(Value::as_u64).filter(|&ms| ms > 0)
        {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        let value = self.get_batch_context(&ctx)?.start_position()?;
        Ok(json!({"value": value}).into())
    }
}

/// A value that one step hands to the next.
#[derive(Deserialize)]
struct Handed {
    value: u64,
}

/// Adds up the numbers and compares the sum with the closed formula.
struct SumUp;

impl StepHandler for SumUp {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let n = ctx.input::<FanOut>()?.n.into();
        run_streaming(&ctx, &Sum { n }).await
    }
}

struct Sum {
    n: u64,
}

impl StreamingAggregator for Sum {
    /// Sum and count.
    type Acc = (u64, u64);

    fn fold(&self, (sum, count): &mut (u64, u64), member: &MemberResult) -> Result<(), StepError> {
        if let Some(handed) = member.result_as::<Handed>()? {
            *sum = sum.saturating_add(handed.value);
            *count += 1;
        }
        Ok(())
    }

    fn finish(&self, (sum, count): (u64, u64), _: &FanIn) -> Result<StepResult, StepError> {
        let expect = (sum_below(self.n), self.n);
        if (sum, count) != expect {
            let message = format!("sum and count are {:?}, not {expect:?}", (sum, count));
            return Err(StepError::permanent(AGGREGATION_MISMATCH, message));
        }
        Ok(json!({"sum": sum, "count": count}).into())
    }
}

/// The context of a `chain` task.
#[derive(Deserialize)]
struct Chain {
    start: u64,
}

/// `handler.initialization` of the later steps of a chain.
#[derive(Deserialize)]
struct ChainNext {
    after: String,
}

async fn chain_first(ctx: StepContext) -> Result<StepResult, StepError> {
    let start = ctx.input::<Chain>()?.start;
    Ok(json!({"value": start.saturating_add(1)}).into())
}

async fn chain_next(ctx: StepContext) -> Result<StepResult, StepError> {
    let after = ctx.config_as::<ChainNext>()?.after;
    let previous: Handed = ctx.dependency_result_as(&after).await?;
    Ok(json!({"value": previous.value.saturating_add(1)}).into())
}
