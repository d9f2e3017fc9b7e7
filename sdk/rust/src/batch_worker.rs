use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tasker_messages::{BatchMetadata, CursorConfig, FailureStrategy, cursor::NO_OP_BATCH_ID};

use crate::{StepContext, StepError, code};

/// The range of a batch worker. Accessors with a type fail rather than guess.
#[derive(Debug, Clone)]
pub struct BatchWorkerContext {
    ctx: StepContext,
}

impl BatchWorkerContext {
    /// Reads the range of a step.
    ///
    /// # Errors
    /// A permanent [`code::NOT_A_BATCH_WORKER`] if it has none.
    pub fn new(ctx: &StepContext) -> Result<Self, StepError> {
        if ctx.parts().cursor.is_none() && !ctx.parts().shared.is_no_op {
            let message = format!("`{}` has no cursor; only a batch_worker has one", ctx.name());
            return Err(StepError::permanent(code::NOT_A_BATCH_WORKER, message));
        }
        Ok(Self { ctx: ctx.clone() })
    }

    fn cursor(&self) -> Option<&CursorConfig> {
        self.ctx.parts().cursor.as_ref()
    }

    fn metadata(&self) -> Option<&BatchMetadata> {
        self.ctx.parts().shared.batch.as_ref()
    }

    /// The range's name, unique in its batch.
    pub fn batch_id(&self) -> &str {
        self.cursor().map_or(NO_OP_BATCH_ID, |cursor| &cursor.batch_id)
    }

    /// The first position of the range; null in a placeholder.
    pub fn start_cursor(&self) -> &Value {
        self.cursor().map_or(&Value::Null, |cursor| &cursor.start_cursor)
    }

    /// The position after the last; null in a placeholder.
    pub fn end_cursor(&self) -> &Value {
        self.cursor().map_or(&Value::Null, |cursor| &cursor.end_cursor)
    }

    /// The first position as a type.
    ///
    /// # Errors
    /// A permanent [`code::CURSOR_INVALID`] if it does not fit.
    pub fn start_cursor_as<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        self.typed("start_cursor", self.start_cursor())
    }

    /// The position after the last as a type.
    ///
    /// # Errors
    /// A permanent [`code::CURSOR_INVALID`] if it does not fit.
    pub fn end_cursor_as<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        self.typed("end_cursor", self.end_cursor())
    }

    /// The first position of an integer range.
    ///
    /// # Errors
    /// A permanent [`code::CURSOR_INVALID`] if it is something else.
    pub fn start_position(&self) -> Result<u64, StepError> {
        self.start_cursor_as()
    }

    /// The position after the last of an integer range.
    ///
    /// # Errors
    /// A permanent [`code::CURSOR_INVALID`] if it is something else.
    pub fn end_position(&self) -> Result<u64, StepError> {
        self.end_cursor_as()
    }

    fn typed<T: DeserializeOwned>(&self, which: &str, cursor: &Value) -> Result<T, StepError> {
        T::deserialize(cursor).map_err(|e| {
            let message = format!("{which} of `{}`: {e}", self.ctx.name());
            StepError::permanent(code::CURSOR_INVALID, message)
        })
    }

    /// How many items the range holds, as far as the analyzer knew.
    pub fn batch_size(&self) -> u32 {
        self.cursor().map_or(0, |cursor| cursor.batch_size)
    }

    /// Items between two checkpoints; 0 when the template does not say.
    pub fn checkpoint_interval(&self) -> u32 {
        self.metadata().map_or(0, |metadata| metadata.checkpoint_interval)
    }

    /// The name of the field that the cursors run over; empty when the template does not say.
    pub fn cursor_field(&self) -> &str {
        self.metadata().map_or("", |metadata| &metadata.cursor_field)
    }

    /// What a failing member does to the batch.
    pub fn failure_strategy(&self) -> FailureStrategy {
        self.metadata().map(|metadata| metadata.failure_strategy).unwrap_or_default()
    }

    /// Whether this is the placeholder of a batch without ranges: there is nothing to do.
    pub fn is_no_op(&self) -> bool {
        self.ctx.parts().shared.is_no_op
    }
}

/// What a batch worker did, in the shape that [`crate::aggregate_worker_results`] adds up.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct BatchWorkerOutcome {
    /// Items looked at.
    pub items_processed: u64,
    /// Items that came out well.
    pub items_succeeded: u64,
    /// Items that did not.
    pub items_failed: u64,
    /// Items that were left out on purpose.
    pub items_skipped: u64,
    /// Where the worker stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_cursor: Option<Value>,
    /// Whatever the aggregator needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<Value>,
    /// What went wrong with items.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::TestContext;

    fn worker(start: Value, end: Value) -> BatchWorkerContext {
        let cursor = CursorConfig {
            batch_id: "007".to_owned(),
            start_cursor: start,
            end_cursor: end,
            batch_size: 5,
        };
        let ctx = TestContext::builder().cursor(cursor).build();
        BatchWorkerContext::new(&ctx).expect("it has a cursor")
    }

    #[test]
    fn positions_are_not_guessed() {
        let bad = Err(code::CURSOR_INVALID);
        let table = [
            (json!(0), Ok(0)),
            (json!(7), Ok(7)),
            (json!(u64::MAX), Ok(u64::MAX)),
            (json!(-1), bad),
            (json!(1.0), bad),
            (json!("7"), bad),
            (json!(null), bad),
            (json!({"row": 7}), bad),
        ];
        for (cursor, expect) in table {
            let batch = worker(cursor.clone(), cursor.clone());
            for got in [batch.start_position(), batch.end_position()] {
                assert_eq!(
                    got.as_ref().map_err(StepError::code),
                    expect.as_ref().map_err(|&e| e),
                    "{cursor}"
                );
            }
            assert_eq!(batch.start_cursor(), &cursor);
        }
    }

    #[test]
    fn what_is_shared() {
        let metadata = BatchMetadata {
            checkpoint_interval: 10,
            cursor_field: "row".to_owned(),
            failure_strategy: FailureStrategy::ContinueOnFailure,
        };
        let ctx = TestContext::builder().no_op().batch_metadata(metadata).build();
        let batch = BatchWorkerContext::new(&ctx).expect("a placeholder");
        assert_eq!((batch.batch_id(), batch.is_no_op(), batch.batch_size()), ("000", true, 0));
        assert_eq!((batch.cursor_field(), batch.checkpoint_interval()), ("row", 10));
        let plain = TestContext::builder().build();
        let error = BatchWorkerContext::new(&plain).expect_err("no cursor");
        assert_eq!(error.code(), code::NOT_A_BATCH_WORKER);
    }
}
