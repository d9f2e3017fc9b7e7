//! Workload `resumable`: goes through items with checkpoints, and fails where it is told to.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tasker_sdk::{
    Batchable, FanIn, HandlerRegistry, MemberResult, MemberResultExt, StepContext, StepError,
    StepHandler, StepResult, StreamingAggregator, code, run_streaming,
};

/// The code of the failure that the context asks for.
const FAILED_ON_PURPOSE: &str = "FAILED_ON_PURPOSE";

pub(crate) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("resumable.split", Split)
        .register("resumable.work", Work)
        .register("resumable.total", Total)
}

/// The context of the task.
#[derive(Deserialize)]
struct Input {
    total_items: u64,
    /// Items between two checkpoints; else what the template says.
    items_per_checkpoint: Option<u64>,
    /// How many ranges the items are cut into.
    #[serde(default = "one")]
    workers: u32,
    /// A range fails when so many of its items are behind it …
    fail_after_items: Option<u64>,
    /// … in this attempt …
    #[serde(default = "one")]
    fail_on_attempt: u32,
    /// … for good.
    #[serde(default)]
    permanent_failure: bool,
    /// How long an item takes.
    #[serde(default)]
    item_ms: u64,
    /// Whether a range gives its slot to others at each checkpoint.
    #[serde(default)]
    yields: bool,
}

fn one() -> u32 {
    1
}

/// Cuts `[0, total_items)`.
struct Split;

impl Batchable for Split {}

impl StepHandler for Split {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let input: Input = ctx.input()?;
        if input.total_items == 0 || input.workers == 0 {
            return self.no_batches_outcome("there are no items", Value::Null);
        }
        let ranges = self.create_cursor_configs(input.total_items, input.workers);
        self.batch_analyzer_success("work_through", ranges, input.total_items, Value::Null)
    }
}

/// What the items of a range have come to.
#[derive(Clone, Default, Serialize, Deserialize)]
struct SoFar {
    sum: u64,
    /// Which attempt went through which items, as far as checkpoints say.
    runs: Vec<Run>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Run {
    attempt: u32,
    from: u64,
    upto: u64,
}

/// Adds up the items of a range.
struct Work;

impl Batchable for Work {}

impl StepHandler for Work {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        if let Some(nothing_to_do) = self.handle_no_op_worker(&ctx) {
            return Ok(nothing_to_do);
        }
        let input: Input = ctx.input()?;
        let range = self.get_batch_context(&ctx)?;
        let (start, end) = (range.start_position()?, range.end_position()?);
        let interval = input.items_per_checkpoint.unwrap_or(range.checkpoint_interval().into());
        let (mut so_far, from) = match ctx.checkpoint().await? {
            Some(stored) => (
                serde_json::from_value(stored.accumulated_results)?,
                serde_json::from_value(stored.cursor)?,
            ),
            None => (SoFar::default(), start),
        };
        let run = |upto| Run { attempt: ctx.attempt(), from, upto };
        for item in from..end {
            ctx.check_cancelled()?;
            fail_on_purpose(&ctx, &input, item - start)?;
            tokio::time::sleep(Duration::from_millis(input.item_ms)).await;
            so_far.sum += item;
            let behind = item + 1 - start;
            if interval == 0 || behind % interval != 0 || item + 1 == end {
                continue;
            }
            let mut stored = so_far.clone();
            stored.runs.push(run(item + 1));
            if input.yields {
                return self.checkpoint_yield(item + 1, behind, stored);
            }
            self.update_checkpoint(&ctx, item + 1, behind, stored).await?;
        }
        so_far.runs.push(run(end));
        Ok(json!({
            "processed": end - start, "sum": so_far.sum, "resumed_from": from, "runs": so_far.runs,
        })
        .into())
    }
}

fn fail_on_purpose(ctx: &StepContext, input: &Input, behind: u64) -> Result<(), StepError> {
    if input.fail_after_items != Some(behind) || input.fail_on_attempt != ctx.attempt() {
        return Ok(());
    }
    let message = format!("fails after {behind} items of attempt {}", ctx.attempt());
    Err(match input.permanent_failure {
        true => StepError::permanent(FAILED_ON_PURPOSE, message),
        false => StepError::retryable(FAILED_ON_PURPOSE, message),
    })
}

/// Adds up the ranges, and compares with what all items come to.
struct Total;

#[derive(Default, Serialize, Deserialize)]
struct Totals {
    processed: u64,
    sum: u64,
}

impl StreamingAggregator for Total {
    type Acc = Totals;

    fn fold(&self, totals: &mut Totals, member: &MemberResult) -> Result<(), StepError> {
        if let Some(result) = member.result_as::<Totals>()? {
            totals.processed += result.processed;
            totals.sum += result.sum;
        }
        Ok(())
    }

    fn finish(&self, totals: Totals, fan_in: &FanIn) -> Result<StepResult, StepError> {
        let n = totals.processed;
        if fan_in.failed == 0 && totals.sum != n * n.saturating_sub(1) / 2 {
            let message = format!("{n} items came to {}", totals.sum);
            return Err(StepError::permanent(code::RESULT_SHAPE, message));
        }
        Ok(json!({"processed": n, "sum": totals.sum, "ranges": fan_in.worker_count,
            "failed": fan_in.failed})
        .into())
    }
}

impl StepHandler for Total {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        run_streaming(&ctx, self).await
    }
}
