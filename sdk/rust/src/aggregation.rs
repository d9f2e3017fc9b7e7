use serde::Deserialize;
use serde_json::{Value, json};
use tasker_messages::{BatchSummary, MemberResult};

use crate::{MemberResultExt, StepContext, StepError, StepResult};

/// At most so many errors are listed in an aggregate; the rest is only counted.
const LISTED_ERRORS: usize = 100;

/// What an aggregator finds, decided from what the orchestrator knows.
#[derive(Debug, Clone)]
pub enum BatchAggregationScenario {
    /// No analyzer found anything to do.
    NoBatches {
        /// The result of the analyzer; of the first one if there are several.
        batchable_result: Value,
    },
    /// There were workers.
    WithBatches {
        /// Their outcomes in ordinal order, failed ones included; all in memory. For large batches
        /// use [`crate::run_streaming`].
        batch_results: Vec<MemberResult>,
        /// How many there were.
        worker_count: u32,
    },
}

impl BatchAggregationScenario {
    /// Loads what the convergence step `ctx` aggregates.
    ///
    /// # Errors
    /// Those of the backend, and a permanent one if the step aggregates no batch.
    pub async fn detect(ctx: &StepContext) -> Result<Self, StepError> {
        let Some(first) = ctx.batches().first() else {
            return Err(StepError::permanent(
                crate::code::DEPENDENCY_NOT_FOUND,
                format!("`{}` aggregates no batch", ctx.name()),
            ));
        };
        if ctx.batches().iter().all(|batch| batch.is_no_op) {
            let batchable_result = ctx.dependency_result(&first.batchable_step).await?;
            return Ok(Self::NoBatches { batchable_result });
        }
        let worker_count = count_workers(ctx.batches());
        let mut batch_results = Vec::with_capacity(worker_count as usize);
        let mut members = ctx.stream_dependency_results();
        while let Some(member) = members.next().await? {
            batch_results.push(member);
        }
        Ok(Self::WithBatches { batch_results, worker_count })
    }
}

/// How many real members the batches have; a placeholder is none.
pub(crate) fn count_workers(batches: &[BatchSummary]) -> u32 {
    let real = batches.iter().filter(|batch| !batch.is_no_op);
    real.fold(0, |sum, batch| sum.saturating_add(batch.worker_count))
}

/// What an author puts in place of the default sums: a maximum, a concatenation, a merge.
pub type AggregateFn<'a> = &'a dyn Fn(&[MemberResult]) -> Result<Value, StepError>;

/// Adds up results of workers that have the shape of [`crate::BatchWorkerOutcome`]:
/// `total_processed`, `total_succeeded`, `total_failed`, `total_skipped`, `batch_count`,
/// `success_rate` (0 to 1; 0 if nothing was processed), `errors` (the first 100) and `error_count`.
/// A worker that failed counts as one error.
///
/// # Errors
/// Those of `custom`, or a permanent one if a result has another shape.
pub fn aggregate_worker_results(
    results: &[MemberResult],
    custom: Option<AggregateFn<'_>>,
) -> Result<StepResult, StepError> {
    if let Some(custom) = custom {
        return custom(results).map(StepResult::new);
    }
    let mut totals = Totals::default();
    for member in results {
        totals.add(member)?;
    }
    let success_rate = match totals.processed {
        0 => 0.0,
        processed => totals.succeeded as f64 / processed as f64,
    };
    let aggregate = json!({
        "total_processed": totals.processed,
        "total_succeeded": totals.succeeded,
        "total_failed": totals.failed,
        "total_skipped": totals.skipped,
        "batch_count": results.len(),
        "success_rate": success_rate,
        "errors": totals.errors,
        "error_count": totals.error_count,
    });
    Ok(aggregate.into())
}

#[derive(Default)]
struct Totals {
    processed: u64,
    succeeded: u64,
    failed: u64,
    skipped: u64,
    errors: Vec<Value>,
    error_count: u64,
}

/// The part of a worker's result that is added up.
#[derive(Deserialize)]
struct Counts {
    items_processed: u64,
    items_succeeded: u64,
    items_failed: u64,
    #[serde(default)]
    items_skipped: u64,
    #[serde(default)]
    errors: Vec<Value>,
}

impl Totals {
    fn add(&mut self, member: &MemberResult) -> Result<(), StepError> {
        let Some(counts) = member.result_as::<Counts>()? else {
            let error = member.failure_text().unwrap_or_else(|| "no result".to_owned());
            self.add_error(json!({"step": member.name, "error": error}));
            return Ok(());
        };
        self.processed = self.processed.saturating_add(counts.items_processed);
        self.succeeded = self.succeeded.saturating_add(counts.items_succeeded);
        self.failed = self.failed.saturating_add(counts.items_failed);
        self.skipped = self.skipped.saturating_add(counts.items_skipped);
        counts.errors.into_iter().for_each(|error| self.add_error(error));
        Ok(())
    }

    fn add_error(&mut self, error: Value) {
        self.error_count += 1;
        if self.errors.len() < LISTED_ERRORS {
            self.errors.push(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code;
    use crate::testing::{TestBatch, TestContext};

    fn worker(processed: u64, failed: u64, errors: usize) -> Value {
        json!({
            "items_processed": processed, "items_succeeded": processed - failed,
            "items_failed": failed, "items_skipped": 1, "errors": vec!["bad row"; errors],
        })
    }

    async fn with_batches(batch: TestBatch) -> Vec<MemberResult> {
        let ctx = TestContext::builder().batch(batch).build();
        match BatchAggregationScenario::detect(&ctx).await.expect("in memory") {
            BatchAggregationScenario::WithBatches { batch_results, worker_count } => {
                assert_eq!(batch_results.len(), worker_count as usize);
                batch_results
            }
            BatchAggregationScenario::NoBatches { .. } => panic!("there were workers"),
        }
    }

    #[tokio::test]
    async fn default_sums() {
        let batch = TestBatch::new("a", "w")
            .succeeded(worker(10, 1, 70))
            .failed(StepError::permanent("BAD", "no luck"))
            .succeeded(worker(10, 4, 70));
        let got = aggregate_worker_results(&with_batches(batch).await, None).expect("counts");
        let mut got = got.into_value();
        let errors = got["errors"].take();
        let expect = json!({
            "total_processed": 20, "total_succeeded": 15, "total_failed": 5, "total_skipped": 2,
            "batch_count": 3, "success_rate": 0.75, "errors": null, "error_count": 141,
        });
        assert_eq!(got, expect);
        assert_eq!(errors.as_array().map(Vec::len), Some(LISTED_ERRORS));
        assert_eq!(errors[70], json!({"step": "w_002", "error": "no luck [BAD]"}));
    }

    #[tokio::test]
    async fn no_members_no_rate() {
        let got = aggregate_worker_results(&[], None).expect("nothing").into_value();
        assert_eq!((&got["success_rate"], &got["batch_count"]), (&json!(0.0), &json!(0)));
    }

    #[tokio::test]
    async fn a_result_of_another_shape_is_an_error() {
        let batch = TestBatch::new("a", "w").succeeded(json!({"count": 1}));
        let error = aggregate_worker_results(&with_batches(batch).await, None);
        let error = error.expect_err("no counts");
        assert_eq!(error.code(), code::RESULT_SHAPE);
        assert!(error.message().contains("w_001"), "{error}");
    }

    #[tokio::test]
    async fn a_custom_aggregate() {
        let batch = TestBatch::new("a", "w").succeeded(json!(3)).succeeded(json!(8));
        let largest: AggregateFn<'_> = &|members| {
            let mut largest = 0_u64;
            for member in members {
                largest = largest.max(member.result_as()?.unwrap_or(0));
            }
            Ok(largest.into())
        };
        let got = aggregate_worker_results(&with_batches(batch).await, Some(largest));
        assert_eq!(got.expect("numbers").into_value(), json!(8));
    }

    #[tokio::test]
    async fn scenarios() {
        let empty = TestBatch::no_batches("a", "w").analyzer_result(json!({"rows": 0}));
        let ctx = TestContext::builder().batch(empty.clone()).build();
        match BatchAggregationScenario::detect(&ctx).await.expect("in memory") {
            BatchAggregationScenario::NoBatches { batchable_result } => {
                assert_eq!(batchable_result, json!({"rows": 0}));
            }
            other => panic!("{other:?}"),
        }
        let mixed =
            TestContext::builder().batch(empty).batch(TestBatch::new("b", "v").succeeded(json!(1)));
        match BatchAggregationScenario::detect(&mixed.build()).await.expect("in memory") {
            BatchAggregationScenario::WithBatches { worker_count, .. } => {
                assert_eq!(worker_count, 1)
            }
            other => panic!("{other:?}"),
        }
        let error = BatchAggregationScenario::detect(&TestContext::builder().build()).await;
        assert_eq!(error.expect_err("no batch").code(), code::DEPENDENCY_NOT_FOUND);
    }
}
