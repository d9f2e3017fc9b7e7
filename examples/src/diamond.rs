//! Workload `diamond_decision_batch`: a diamond sorts numbers into even and odd ones, a decision
//! takes the way of the majority, and a batch adds it up.

use serde::Deserialize;
use serde_json::{Value, json};
use tasker_sdk::{
    BatchAggregationScenario, Batchable, Decision, HandlerRegistry, MemberResultExt, StepContext,
    StepError, StepHandler, StepResult, code,
};

pub(crate) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("diamond.start", start)
        .register("diamond.branch_evens", branch_evens)
        .register("diamond.branch_odds", branch_odds)
        .register("diamond.route", Route)
        .register("diamond.analyze", Analyze)
        .register("diamond.process_batch", ProcessBatch)
        .register("diamond.aggregate", Aggregate)
}

#[derive(Deserialize)]
struct Input {
    numbers: Vec<i64>,
}

/// What each branch of the diamond returns.
#[derive(Deserialize)]
struct Sorted {
    numbers: Vec<i64>,
}

async fn start(ctx: StepContext) -> Result<StepResult, StepError> {
    let Input { numbers } = ctx.input()?;
    if numbers.is_empty() {
        return Err(StepError::permanent(code::VALIDATION_ERROR, "numbers: there are none"));
    }
    Ok(json!({"numbers": numbers, "count": numbers.len()}).into())
}

async fn branch_evens(ctx: StepContext) -> Result<StepResult, StepError> {
    branch(&ctx, |n| n % 2 == 0).await
}

async fn branch_odds(ctx: StepContext) -> Result<StepResult, StepError> {
    branch(&ctx, |n| n % 2 != 0).await
}

async fn branch(ctx: &StepContext, takes: fn(i64) -> bool) -> Result<StepResult, StepError> {
    let Sorted { mut numbers } = ctx.dependency_result_as("ddb_diamond_start").await?;
    numbers.retain(|&n| takes(n));
    Ok(json!({"count": numbers.len(), "numbers": numbers}).into())
}

/// Takes the way of the majority; ties go even.
struct Route;

impl Decision for Route {}

impl StepHandler for Route {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let evens: Sorted = ctx.dependency_result_as("branch_evens").await?;
        let odds: Sorted = ctx.dependency_result_as("branch_odds").await?;
        let (evens, odds) = (evens.numbers.len(), odds.numbers.len());
        let (route, step) = match evens >= odds {
            true => ("even", "even_batch_analyzer"),
            false => ("odd", "odd_batch_analyzer"),
        };
        self.decision_success([step], json!({"route": route, "evens": evens, "odds": odds}))
    }
}

/// `handler.initialization` of the analyzers.
#[derive(Deserialize)]
struct AnalyzerConfig {
    /// The branch whose numbers are added up.
    branch: String,
    batch_size: u64,
    max_workers: u32,
    worker_template: String,
}

struct Analyze;

impl Batchable for Analyze {}

impl StepHandler for Analyze {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let config: AnalyzerConfig = ctx.config_as()?;
        let numbers = numbers_of(&ctx, &config.branch)?;
        let total = numbers.len() as u64;
        let ranges = self.create_cursor_ranges(total, config.batch_size, config.max_workers);
        let metadata = json!({"worker_count": ranges.len(), "total_items": total});
        self.batch_analyzer_success(&config.worker_template, ranges, total, metadata)
    }
}

/// The numbers of a branch, in the order of the context: no step in between need hand them on.
fn numbers_of(ctx: &StepContext, branch: &str) -> Result<Vec<i64>, StepError> {
    let Input { mut numbers } = ctx.input()?;
    let wanted = match branch {
        "even" => 0,
        "odd" => 1,
        other => {
            let message = format!("branch: must be even or odd, not {other:?}");
            return Err(StepError::permanent(code::CONFIG_INVALID, message));
        }
    };
    numbers.retain(|n| n.rem_euclid(2) == wanted);
    Ok(numbers)
}

/// `handler.initialization` of the batch workers.
#[derive(Deserialize)]
struct WorkerConfig {
    branch: String,
}

struct ProcessBatch;

impl Batchable for ProcessBatch {}

impl StepHandler for ProcessBatch {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let config: WorkerConfig = ctx.config_as()?;
        let batch = self.get_batch_context(&ctx)?;
        let numbers = numbers_of(&ctx, &config.branch)?;
        let (start, end) = (batch.start_position()? as usize, batch.end_position()? as usize);
        let Some(mine) = numbers.get(start..end) else {
            let message = format!("{start}..{end} is outside of {} numbers", numbers.len());
            return Err(StepError::permanent(code::CURSOR_INVALID, message));
        };
        let sum: i64 = mine.iter().sum();
        Ok(json!({"batch_id": batch.batch_id(), "sum": sum, "count": mine.len()}).into())
    }
}

/// What the aggregator needs of a worker's result.
#[derive(Deserialize)]
struct Part {
    sum: i64,
    count: u64,
}

struct Aggregate;

impl StepHandler for Aggregate {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let members = match BatchAggregationScenario::detect(&ctx).await? {
            BatchAggregationScenario::NoBatches { .. } => Vec::new(),
            BatchAggregationScenario::WithBatches { batch_results, .. } => batch_results,
        };
        let (mut total, mut items, mut batches) = (0, 0, Vec::<Value>::new());
        for member in &members {
            if let Some(part) = member.result_as::<Part>()? {
                total += part.sum;
                items += part.count;
                batches.push(part.sum.into());
            }
        }
        Ok(json!({
            "total": total, "item_count": items, "batch_sums": batches,
            "worker_count": members.len(),
        })
        .into())
    }
}
