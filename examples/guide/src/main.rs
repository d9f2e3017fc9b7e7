//! Counts primes in ranges, with checkpoints.

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};
use tasker_sdk::{
    Batchable, FanIn, HandlerRegistry, MemberResult, MemberResultExt, StepContext, StepError,
    StepHandler, StepResult, StreamingAggregator, run_blocking, run_streaming,
};
use tasker_worker_node::WorkerNode;

/// The context of a task.
#[derive(Deserialize)]
struct Input {
    below: u64,
    /// A file that must not be there: what goes wrong in this guide.
    stumbles_over: Option<String>,
}

/// Cuts `[0, below)` into ranges of a million.
struct Split;

impl Batchable for Split {}

impl StepHandler for Split {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let Input { below, .. } = ctx.input()?;
        let ranges = self.create_cursor_ranges(below, 1_000_000, 100);
        if ranges.is_empty() {
            return self.no_batches_outcome("there are no numbers below 0", Value::Null);
        }
        self.batch_analyzer_success("count_range", ranges, below, Value::Null)
    }
}

/// Counts the primes of one range, and notes now and then how far it is.
struct CountRange;

impl Batchable for CountRange {}

impl StepHandler for CountRange {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        if let Some(nothing_to_do) = self.handle_no_op_worker(&ctx) {
            return Ok(nothing_to_do);
        }
        let range = self.get_batch_context(&ctx)?;
        let (start, end) = (range.start_position()?, range.end_position()?);
        let interval = u64::from(range.checkpoint_interval());
        let (mut at, mut primes) = match ctx.checkpoint().await? {
            Some(stored) => (
                serde_json::from_value(stored.cursor)?,
                serde_json::from_value(stored.accumulated_results)?,
            ),
            None => (start, 0_u64),
        };
        let resumed_from = at;
        while at < end {
            ctx.check_cancelled()?;
            stumble(&ctx, at, end)?;
            let upto = end.min(at + interval);
            primes += run_blocking(move || Ok(count_primes(at, upto))).await?;
            at = upto;
            self.update_checkpoint(&ctx, at, at - start, primes).await?;
        }
        Ok(json!({"primes": primes, "resumed_from": resumed_from}).into())
    }
}

/// Fails for good in the middle of the last range, while the file is there.
fn stumble(ctx: &StepContext, at: u64, end: u64) -> Result<(), StepError> {
    let Input { below, stumbles_over } = ctx.input()?;
    let Some(file) = stumbles_over.filter(|_| end == below && at + 500_000 >= end) else {
        return Ok(());
    };
    if std::path::Path::new(&file).exists() {
        return Err(StepError::permanent("STUMBLED", format!("{file} lies in the way at {at}")));
    }
    Ok(())
}

fn count_primes(from: u64, upto: u64) -> u64 {
    let is_prime = |n: u64| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (from..upto).filter(|&n| is_prime(n)).count() as u64
}

/// Adds up the ranges.
struct Total;

impl StreamingAggregator for Total {
    type Acc = u64;

    fn fold(&self, total: &mut u64, member: &MemberResult) -> Result<(), StepError> {
        if let Some(result) = member.result_as::<Value>()? {
            *total += result["primes"].as_u64().unwrap_or(0);
        }
        Ok(())
    }

    fn finish(&self, total: u64, ranges: &FanIn) -> Result<StepResult, StepError> {
        Ok(json!({"primes": total, "ranges": ranges.worker_count}).into())
    }
}

impl StepHandler for Total {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        run_streaming(&ctx, self).await
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let environment = tasker_config::process_environment();
    let settings = tasker_config::Loader::new()?.environment(environment)?.load()?.settings;
    tasker_config::init_telemetry(&settings.telemetry)?;
    let handlers = HandlerRegistry::new()
        .register("primes.split", Split)
        .register("primes.count_range", CountRange)
        .register("primes.total", Total);
    let worker = WorkerNode::start(settings, handlers, "primes").await?;
    tokio::signal::ctrl_c().await.context("no signals")?;
    worker.stop().await;
    Ok(())
}
