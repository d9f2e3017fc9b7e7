//! Workload `synthetic`: adds up the integers below a number.

use serde::Deserialize;
use serde_json::json;
use tasker_sdk::{
    BatchAggregationScenario, BatchWorkerOutcome, Batchable, HandlerRegistry, MemberResultExt,
    StepContext, StepError, StepHandler, StepResult, aggregate_worker_results, code,
};

/// The aggregate is not what the analyzer foresaw.
pub(crate) const AGGREGATION_MISMATCH: &str = "AGGREGATION_MISMATCH";

/// So that sums fit into 64 bits.
const MAX_DATASET_SIZE: u64 = u32::MAX as u64;

pub(crate) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("synthetic.analyze_dataset", AnalyzeDataset)
        .register("synthetic.process_batch", ProcessBatch)
        .register("synthetic.aggregate_results", AggregateResults)
}

/// The sum of the integers below `n`.
pub(crate) fn sum_below(n: u64) -> u64 {
    n * n.saturating_sub(1) / 2
}

/// The context of the task.
#[derive(Deserialize)]
struct Input {
    dataset_size: u64,
}

/// Numbers in one range where the template does not say.
const DEFAULT_BATCH_SIZE: u32 = 1_000;

/// Cuts `[0, dataset_size)` into ranges whose sizes differ by at most one.
struct AnalyzeDataset;

impl Batchable for AnalyzeDataset {}

impl StepHandler for AnalyzeDataset {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let Some(wishes) = ctx.split_wishes() else {
            return Err(StepError::permanent(code::CONFIG_INVALID, "the step is not batchable"));
        };
        let batch_size = wishes.batch_size.unwrap_or(DEFAULT_BATCH_SIZE);
        let size = ctx.input::<Input>()?.dataset_size;
        if size > MAX_DATASET_SIZE {
            let message = format!("dataset_size: {size} is more than {MAX_DATASET_SIZE}");
            return Err(StepError::permanent(code::VALIDATION_ERROR, message));
        }
        let wanted = size.div_ceil(batch_size.into());
        let workers = wanted.min(wishes.max_workers.unwrap_or(u32::MAX).into()) as u32;
        let metadata = json!({
            "dataset_size": size, "worker_count": workers, "expected_sum": sum_below(size),
        });
        if size == 0 {
            return self.no_batches_outcome("the data set is empty", metadata);
        }
        let ranges = self.create_cursor_configs(size, workers);
        self.batch_analyzer_success(&wishes.worker_template, ranges, size, metadata)
    }
}

/// Adds up one range.
struct ProcessBatch;

impl Batchable for ProcessBatch {}

impl StepHandler for ProcessBatch {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        if let Some(result) = self.handle_no_op_worker(&ctx) {
            return Ok(result);
        }
        let batch = self.get_batch_context(&ctx)?;
        let (start, end) = (batch.start_position()?, batch.end_position()?);
        if end > MAX_DATASET_SIZE {
            let message = format!("end_cursor: {end} is more than {MAX_DATASET_SIZE}");
            return Err(StepError::permanent(code::CURSOR_INVALID, message));
        }
        let sum: u64 = (start..end).sum();
        let items = end.saturating_sub(start);
        self.batch_worker_success(BatchWorkerOutcome {
            items_processed: items,
            items_succeeded: items,
            last_cursor: Some(batch.end_cursor().clone()),
            results: Some(json!({"sum": sum})),
            ..BatchWorkerOutcome::default()
        })
    }
}

/// What the aggregator needs of the analyzer's result.
#[derive(Deserialize)]
struct Foreseen {
    expected_sum: u64,
}

/// What the aggregator needs of a worker's result.
#[derive(Deserialize)]
struct WorkerResult {
    results: RangeSum,
}

#[derive(Deserialize)]
struct RangeSum {
    sum: u64,
}

/// Adds up the sums and compares them with what the analyzer foresaw.
struct AggregateResults;

impl StepHandler for AggregateResults {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let analyzer = ctx.batches().first().map_or("", |batch| &batch.batchable_step);
        let Foreseen { expected_sum } = ctx.dependency_result_as(analyzer).await?;
        let (members, worker_count) = match BatchAggregationScenario::detect(&ctx).await? {
            BatchAggregationScenario::NoBatches { .. } => (Vec::new(), 0),
            BatchAggregationScenario::WithBatches { batch_results, worker_count } => {
                (batch_results, worker_count)
            }
        };
        let mut sum = 0_u64;
        for member in &members {
            let part = member.result_as::<WorkerResult>()?.map_or(0, |worker| worker.results.sum);
            sum = sum.saturating_add(part);
        }
        if sum != expected_sum {
            let message = format!("the workers' sums make {sum}, not {expected_sum}");
            return Err(StepError::permanent(AGGREGATION_MISMATCH, message));
        }
        let mut result = aggregate_worker_results(&members, None)?.into_value();
        result["sum"] = sum.into();
        result["worker_count"] = worker_count.into();
        Ok(result.into())
    }
}
