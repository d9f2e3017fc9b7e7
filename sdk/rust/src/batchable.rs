use std::future::Future;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tasker_messages::{
    BatchProcessingOutcome, CreateBatches, CursorConfig, CursorRange, CursorSource,
    code as wire_code, cursor,
};

use crate::{
    BatchWorkerContext, BatchWorkerOutcome, StepContext, StepError, StepResult, checkpoint,
};

/// The key of a batchable step's result under which its outcome stands.
const OUTCOME_KEY: &str = "batch_processing_outcome";

/// What handlers of batchable and batch worker steps have in common.
///
/// Everything has a default: `impl Batchable for MyHandler {}` is enough. Results of analyzers are
/// `{"batch_processing_outcome": …}` with the keys of `metadata`, an object or null, beside it.
pub trait Batchable {
    /// Ranges over `[0, total_items)` for a number of workers; sizes differ by at most one. Fewer
    /// when there are fewer items than workers.
    fn create_cursor_configs(&self, total_items: u64, worker_count: u32) -> Vec<CursorConfig> {
        cursor::create_cursor_configs(total_items, worker_count)
    }

    /// The same with cursors of another type: `customise` turns the 0-based integer cursors of a
    /// range into others.
    fn create_cursor_configs_with(
        &self,
        total_items: u64,
        worker_count: u32,
        customise: impl FnMut(&mut CursorConfig),
    ) -> Vec<CursorConfig>
    where
        Self: Sized,
    {
        let mut configs = self.create_cursor_configs(total_items, worker_count);
        configs.iter_mut().for_each(customise);
        configs
    }

    /// Ranges over `[0, total_items)` of `batch_size` items, the last one shorter. If that makes
    /// more than `max_batches`, the ranges are made larger.
    fn create_cursor_ranges(
        &self,
        total_items: u64,
        batch_size: u64,
        max_batches: u32,
    ) -> Vec<CursorConfig> {
        cursor::create_cursor_ranges(total_items, batch_size, max_batches)
    }

    /// There is nothing to do.
    ///
    /// # Errors
    /// A permanent one if the metadata is not an object or takes the outcome's key.
    fn no_batches_outcome(
        &self,
        reason: impl Into<String>,
        metadata: Value,
    ) -> Result<StepResult, StepError>
    where
        Self: Sized,
    {
        outcome(&BatchProcessingOutcome::NoBatches { reason: Some(reason.into()) }, metadata)
    }

    /// One worker per range, spelled out.
    ///
    /// # Errors
    /// A permanent one if there is no range or the metadata is unusable.
    fn batch_analyzer_success(
        &self,
        worker_template_name: &str,
        cursor_configs: Vec<CursorConfig>,
        total_items: u64,
        metadata: Value,
    ) -> Result<StepResult, StepError> {
        let count = count_of(cursor_configs.len() as u64)?;
        let source = CursorSource::List(cursor_configs);
        create_batches(worker_template_name, count, source, total_items, metadata)
    }

    /// Another name of [`Self::batch_analyzer_success`].
    ///
    /// # Errors
    /// The same.
    fn create_batches_outcome(
        &self,
        worker_template_name: &str,
        cursor_configs: Vec<CursorConfig>,
        total_items: u64,
        metadata: Value,
    ) -> Result<StepResult, StepError> {
        self.batch_analyzer_success(worker_template_name, cursor_configs, total_items, metadata)
    }

    /// One worker per piece of an integer range: the short form, whatever the number of workers.
    ///
    /// # Errors
    /// A permanent one if the range is empty or has too many pieces, or the metadata is unusable.
    fn batch_range_success(
        &self,
        worker_template_name: &str,
        range: CursorRange,
        total_items: u64,
        metadata: Value,
    ) -> Result<StepResult, StepError> {
        let items = range.end.saturating_sub(range.start);
        let count = count_of(items.div_ceil(range.batch_size.max(1)))?;
        let source = CursorSource::Range(range);
        create_batches(worker_template_name, count, source, total_items, metadata)
    }

    /// One worker per range of those that were stored by [`StepContext::append_cursors`].
    ///
    /// # Errors
    /// A permanent one if `count` is 0 or the metadata is unusable.
    fn batch_appended_success(
        &self,
        worker_template_name: &str,
        count: u32,
        total_items: u64,
        metadata: Value,
    ) -> Result<StepResult, StepError> {
        let count = count_of(count.into())?;
        let source = CursorSource::Appended(count);
        create_batches(worker_template_name, count, source, total_items, metadata)
    }

    /// The range of a batch worker.
    ///
    /// # Errors
    /// A permanent one if the step is not a batch worker.
    fn get_batch_context(&self, ctx: &StepContext) -> Result<BatchWorkerContext, StepError> {
        BatchWorkerContext::new(ctx)
    }

    /// The result of a placeholder; `None` if there is something to do.
    fn handle_no_op_worker(&self, ctx: &StepContext) -> Option<StepResult> {
        let batch = BatchWorkerContext::new(ctx).ok().filter(BatchWorkerContext::is_no_op)?;
        let result = json!({
            "no_op": true,
            "batch_id": batch.batch_id(),
            "items_processed": 0,
            "items_succeeded": 0,
            "items_failed": 0,
            "items_skipped": 0,
        });
        Some(result.into())
    }

    /// The result of a batch worker.
    ///
    /// # Errors
    /// A permanent one if the outcome is not JSON.
    fn batch_worker_success(&self, outcome: BatchWorkerOutcome) -> Result<StepResult, StepError> {
        StepResult::of(&outcome)
    }

    /// Stores how far the step has come and goes on: [`StepContext::save_checkpoint`].
    ///
    /// # Errors
    /// Those of [`StepContext::save_checkpoint`].
    fn update_checkpoint(
        &self,
        ctx: &StepContext,
        cursor: impl Serialize + Send,
        items_processed: u64,
        accumulated_results: impl Serialize + Send,
    ) -> impl Future<Output = Result<(), StepError>> + Send
    where
        Self: Sized,
    {
        let checkpoint = checkpoint::make(cursor, items_processed, accumulated_results);
        let ctx = ctx.clone();
        async move { ctx.store_checkpoint(checkpoint?).await }
    }

    /// How far the step has come, as what its handler returns: it gives its slot to others and
    /// runs again later, from [`StepContext::checkpoint`].
    ///
    /// # Errors
    /// A permanent one if the checkpoint cannot be stored.
    fn checkpoint_yield(
        &self,
        cursor: impl Serialize,
        items_processed: u64,
        accumulated_results: impl Serialize,
    ) -> Result<StepResult, StepError>
    where
        Self: Sized,
    {
        let checkpoint = checkpoint::make(cursor, items_processed, accumulated_results)?;
        Ok(StepResult::yielded(checkpoint))
    }

    /// The result of a batch worker some of whose items failed: the step succeeds, the key
    /// `partial_failure` says that it is not the whole truth.
    ///
    /// # Errors
    /// A permanent one if the outcome is not JSON.
    fn batch_worker_partial_failure(
        &self,
        outcome: BatchWorkerOutcome,
    ) -> Result<StepResult, StepError> {
        let mut result = StepResult::of(&outcome)?.into_value();
        result["partial_failure"] = true.into();
        Ok(result.into())
    }
}

fn count_of(ranges: u64) -> Result<u32, StepError> {
    match u32::try_from(ranges) {
        Ok(0) => Err(StepError::permanent(
            wire_code::BATCH_OUTCOME_INVALID,
            "no ranges: return `no_batches_outcome` when there is nothing to do",
        )),
        Ok(count) => Ok(count),
        Err(_) => Err(StepError::permanent(
            wire_code::BATCH_TOO_LARGE,
            format!("{ranges} ranges are more than a batch can have; make them larger"),
        )),
    }
}

fn create_batches(
    worker_template_name: &str,
    worker_count: u32,
    source: CursorSource,
    total_items: u64,
    metadata: Value,
) -> Result<StepResult, StepError> {
    let batches = CreateBatches {
        worker_template_name: worker_template_name.to_owned(),
        worker_count,
        source,
        total_items,
    };
    outcome(&BatchProcessingOutcome::CreateBatches(batches), metadata)
}

fn outcome(outcome: &BatchProcessingOutcome, metadata: Value) -> Result<StepResult, StepError> {
    let invalid = |message: &str| StepError::permanent(wire_code::BATCH_OUTCOME_INVALID, message);
    let mut result = match metadata {
        Value::Null => Map::new(),
        Value::Object(metadata) => metadata,
        _ => return Err(invalid("the metadata of a batch outcome must be an object or null")),
    };
    let outcome = StepResult::of(outcome)?.into_value();
    if result.insert(OUTCOME_KEY.to_owned(), outcome).is_some() {
        return Err(invalid("the metadata must not have a key `batch_processing_outcome`"));
    }
    Ok(Value::Object(result).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestContext;

    struct Handler;

    impl Batchable for Handler {}

    fn check(got: Result<StepResult, StepError>, expect: Result<Value, &str>) {
        let got = got.map(StepResult::into_value);
        assert_eq!(got.as_ref().map_err(StepError::code), expect.as_ref().map_err(|&e| e));
    }

    #[test]
    fn outcomes() {
        let configs = Handler.create_cursor_ranges(3, 2, 10);
        let listed = json!([
            {"batch_id": "001", "start_cursor": 0, "end_cursor": 2, "batch_size": 2},
            {"batch_id": "002", "start_cursor": 2, "end_cursor": 3, "batch_size": 1},
        ]);
        let create = |extra: Value| {
            let mut outcome = json!({
                "type": "create_batches", "worker_template_name": "w", "worker_count": 2,
                "total_items": 3,
            });
            for (key, value) in extra.as_object().into_iter().flatten() {
                outcome[key] = value.clone();
            }
            outcome
        };
        check(
            Handler.no_batches_outcome("empty", json!({"total_rows": 0})),
            Ok(json!({
                "batch_processing_outcome": {"type": "no_batches", "reason": "empty"},
                "total_rows": 0,
            })),
        );
        check(
            Handler.batch_analyzer_success("w", configs.clone(), 3, json!({"k": 1})),
            Ok(json!({
                "batch_processing_outcome": create(json!({"cursor_configs": listed})),
                "k": 1,
            })),
        );
        check(
            Handler.create_batches_outcome("w", configs.clone(), 3, Value::Null),
            Ok(json!({"batch_processing_outcome": create(json!({"cursor_configs": listed}))})),
        );
        let range = CursorRange { start: 5, end: 8, batch_size: 2 };
        check(
            Handler.batch_range_success("w", range, 3, Value::Null),
            Ok(json!({"batch_processing_outcome": create(json!({
                "cursor_range": {"start": 5, "end": 8, "batch_size": 2},
            }))})),
        );
        check(
            Handler.batch_appended_success("w", 2, 3, Value::Null),
            Ok(json!({"batch_processing_outcome": create(json!({"cursors_appended": 2}))})),
        );
    }

    #[test]
    fn refused_outcomes() {
        let bad = Err(wire_code::BATCH_OUTCOME_INVALID);
        let one = Handler.create_cursor_configs(1, 1);
        check(Handler.batch_analyzer_success("w", Vec::new(), 0, Value::Null), bad.clone());
        check(Handler.batch_appended_success("w", 0, 0, Value::Null), bad.clone());
        let empty = CursorRange { start: 3, end: 3, batch_size: 1 };
        check(Handler.batch_range_success("w", empty, 0, Value::Null), bad.clone());
        let huge = CursorRange { start: 0, end: u64::MAX, batch_size: 1 };
        let too_large = Err(wire_code::BATCH_TOO_LARGE);
        check(Handler.batch_range_success("w", huge, 0, Value::Null), too_large);
        check(Handler.batch_analyzer_success("w", one.clone(), 1, json!([1])), bad.clone());
        let taken = json!({"batch_processing_outcome": 1});
        check(Handler.batch_analyzer_success("w", one, 1, taken), bad.clone());
        check(Handler.no_batches_outcome("why", json!("text")), bad);
    }

    #[test]
    fn cursors_of_another_type() {
        let configs = Handler.create_cursor_configs_with(4, 2, |config| {
            config.start_cursor = format!("key-{}", config.start_cursor).into();
            config.end_cursor = format!("key-{}", config.end_cursor).into();
        });
        let bounds: Vec<_> = configs.iter().map(|c| (&c.start_cursor, &c.end_cursor)).collect();
        assert_eq!(
            bounds,
            [(&json!("key-0"), &json!("key-2")), (&json!("key-2"), &json!("key-4"))]
        );
    }

    #[test]
    fn results_of_workers() {
        let outcome = BatchWorkerOutcome {
            items_processed: 3,
            items_succeeded: 2,
            items_failed: 1,
            errors: vec![json!("row 2")],
            ..BatchWorkerOutcome::default()
        };
        let mut expect = json!({
            "items_processed": 3, "items_succeeded": 2, "items_failed": 1, "items_skipped": 0,
            "errors": ["row 2"],
        });
        check(Handler.batch_worker_success(outcome.clone()), Ok(expect.clone()));
        expect["partial_failure"] = true.into();
        check(Handler.batch_worker_partial_failure(outcome), Ok(expect));
    }

    #[test]
    fn placeholders() {
        let no_op = TestContext::builder().no_op().build();
        let result = Handler.handle_no_op_worker(&no_op).expect("nothing to do");
        assert_eq!(result.value()["no_op"], true);
        let cursor = Handler.create_cursor_configs(1, 1).remove(0);
        let real = TestContext::builder().cursor(cursor).build();
        assert!(Handler.handle_no_op_worker(&real).is_none());
        assert!(Handler.handle_no_op_worker(&TestContext::builder().build()).is_none());
    }
}
