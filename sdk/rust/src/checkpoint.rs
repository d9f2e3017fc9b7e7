//! Checkpoints, as a handler stores and reads them.

use serde::Serialize;
use serde_json::Value;
use tasker_messages::json::{Limits, inspect};
use tasker_messages::{
    Checkpoint, CheckpointVerdict, GetCheckpoint, SaveCheckpoint, code as wire_code,
};

use crate::{StepContext, StepError, code};

/// Largest checkpoint in bytes of JSON, cursor and accumulated results together.
pub const MAX_CHECKPOINT_BYTES: usize = 1_048_576;

impl StepContext {
    /// How far an earlier attempt of the step had come, or this one if it has stored a checkpoint;
    /// `None` before the first. Reads it from the orchestrator in later attempts only.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>, StepError> {
        let mut known = self.last_checkpoint().lock().await;
        if known.is_none() && self.is_retry() {
            let request = GetCheckpoint { step_id: self.step_id() };
            known.clone_from(&self.parts().backend.checkpoint(request).await?.checkpoint);
        }
        Ok(known.clone())
    }

    /// Stores how far the step has come: after a failure, the death of its worker or a repair, the
    /// next attempt finds it, on whatever host. `items_processed` counts from the beginning of the
    /// step, not of the attempt, and must rise.
    ///
    /// # Errors
    /// [`code::ATTEMPT_SUPERSEDED`] if another attempt is current: stop. A permanent
    /// [`wire_code::CHECKPOINT_NOT_AHEAD`] or [`wire_code::CHECKPOINT_NOT_STORABLE`]; else the
    /// backend's.
    pub async fn save_checkpoint(
        &self,
        cursor: impl Serialize,
        items_processed: u64,
        accumulated_results: impl Serialize,
    ) -> Result<(), StepError> {
        let checkpoint = make(cursor, items_processed, accumulated_results)?;
        self.store_checkpoint(checkpoint).await
    }

    /// Stores a checkpoint that was made before; for workers, which store those of a yield.
    ///
    /// # Errors
    /// Those of [`Self::save_checkpoint`].
    pub async fn store_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StepError> {
        // Held across the request, so that checkpoints arrive in the order of their items.
        let mut known = self.last_checkpoint().lock().await;
        let items = checkpoint.items_processed;
        let request = SaveCheckpoint {
            step_id: self.step_id(),
            attempt: self.attempt(),
            checkpoint: checkpoint.clone(),
        };
        match self.parts().backend.save_checkpoint(request).await? {
            CheckpointVerdict::Saved => {
                *known = Some(checkpoint);
                Ok(())
            }
            CheckpointVerdict::Superseded => {
                let message = "another attempt of the step is current";
                Err(StepError::retryable(code::ATTEMPT_SUPERSEDED, message))
            }
            CheckpointVerdict::NotAhead => {
                let message = format!(
                    "items_processed is {items}, and a checkpoint with as many or more is stored; \
                     count from the beginning of the step"
                );
                Err(StepError::permanent(wire_code::CHECKPOINT_NOT_AHEAD, message))
            }
        }
    }
}

/// A checkpoint that can be stored.
pub(crate) fn make(
    cursor: impl Serialize,
    items_processed: u64,
    accumulated_results: impl Serialize,
) -> Result<Checkpoint, StepError> {
    let unfit = |why: String| {
        let message = format!("the checkpoint cannot be stored: {why}");
        StepError::permanent(wire_code::CHECKPOINT_NOT_STORABLE, message)
    };
    let not_json = |error: serde_json::Error| unfit(error.to_string());
    let checkpoint = Checkpoint {
        cursor: serde_json::to_value(cursor).map_err(not_json)?,
        items_processed,
        accumulated_results: serde_json::to_value(accumulated_results).map_err(not_json)?,
        timestamp: None,
    };
    let text = serde_json::to_string(&checkpoint).map_err(not_json)?;
    inspect(&text, Limits::bytes(MAX_CHECKPOINT_BYTES))
        .map_err(|problem| unfit(problem.message))?;
    Ok(checkpoint)
}

/// Whatever was read of accumulated results, as a type.
pub(crate) fn accumulated<T: serde::de::DeserializeOwned>(
    checkpoint: &Checkpoint,
) -> Result<T, StepError> {
    let value: Value = checkpoint.accumulated_results.clone();
    serde_json::from_value(value).map_err(|e| {
        let message = format!("accumulated_results of the checkpoint: {e}");
        StepError::permanent(code::CURSOR_INVALID, message)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::TestContext;

    #[tokio::test]
    async fn a_later_attempt_goes_on() {
        let test = TestContext::builder().build_observed();
        let ctx = test.ctx();
        assert_eq!(ctx.checkpoint().await, Ok(None), "nothing before the first attempt");
        ctx.save_checkpoint(json!({"row": 20}), 20, [1, 2]).await.expect("stored");
        let stored = ctx.checkpoint().await.expect("known").expect("stored");
        assert_eq!((stored.cursor, stored.items_processed), (json!({"row": 20}), 20));
        assert_eq!(stored.accumulated_results, json!([1, 2]));
        let behind = ctx.save_checkpoint(19, 20, ()).await.expect_err("no more items");
        assert_eq!(behind.code(), wire_code::CHECKPOINT_NOT_AHEAD);
        assert_eq!(test.checkpoints().len(), 1);

        let next = TestContext::builder().attempt(2, 1).checkpoint(test.checkpoints()[0].clone());
        let stored = next.build().checkpoint().await.expect("read").expect("stored");
        assert_eq!((stored.cursor, stored.items_processed), (json!({"row": 20}), 20));
    }

    #[tokio::test]
    async fn what_cannot_be_stored_is_refused() {
        let ctx = TestContext::builder().build();
        for bad in [json!("a\0b"), json!("x".repeat(MAX_CHECKPOINT_BYTES))] {
            let error = ctx.save_checkpoint(bad, 1, ()).await.expect_err("refused");
            assert_eq!(error.code(), wire_code::CHECKPOINT_NOT_STORABLE);
        }
        let superseded = TestContext::builder().superseded().build();
        let error = superseded.save_checkpoint(1, 1, ()).await.expect_err("refused");
        assert_eq!((error.code(), error.is_retryable()), (code::ATTEMPT_SUPERSEDED, true));
    }
}
