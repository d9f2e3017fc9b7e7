//! Checkpoints of running steps: fenced by the attempt and by a count of items that only rises.

use std::collections::HashMap;

use tasker_messages::{Checkpoint, CheckpointVerdict, Namespace, SaveCheckpoint, StepId};
use uuid::Uuid;

use crate::pool::{commit, retry_conflicts};
use crate::views::rfc3339;
use crate::{Store, StoreError};

/// What became of checkpoints, by step and attempt.
type Verdicts = HashMap<(StepId, u32), CheckpointVerdict>;

impl Store {
    /// Stores how far steps have come, one checkpoint per step and attempt. The same set again is answered alike.
    pub async fn save_checkpoints(
        &self,
        namespace: &Namespace,
        set: &[SaveCheckpoint],
    ) -> Result<Verdicts, StoreError> {
        retry_conflicts(|| self.save_once(namespace, set)).await
    }

    async fn save_once(
        &self,
        namespace: &Namespace,
        set: &[SaveCheckpoint],
    ) -> Result<Verdicts, StoreError> {
        let column = |get: fn(&SaveCheckpoint) -> String| set.iter().map(get).collect::<Vec<_>>();
        let ids: Vec<Uuid> = set.iter().map(|save| save.step_id.as_uuid()).collect();
        let mut tx = self.hot.begin().await?;
        // Whoever raises the attempt is waited for, and what became of it is read afterwards.
        sqlx::query_file_scalar!("queries/outcomes/lock_steps.sql", &ids, namespace.as_str())
            .fetch_all(&mut *tx)
            .await?;
        let rows = sqlx::query_file!(
            "queries/checkpoints/save.sql",
            namespace.as_str(),
            &ids,
            &set.iter().map(|save| save.attempt as i32).collect::<Vec<_>>(),
            &column(|save| save.checkpoint.cursor.to_string()),
            &set.iter().map(|save| save.checkpoint.items_processed as i64).collect::<Vec<_>>(),
            &column(|save| save.checkpoint.accumulated_results.to_string()),
        )
        .fetch_all(&mut *tx)
        .await?;
        commit(tx).await?;
        let superseded = CheckpointVerdict::Superseded;
        let mut verdicts: Verdicts =
            set.iter().map(|save| ((save.step_id, save.attempt), superseded)).collect();
        for row in rows {
            let saved = match row.saved {
                true => CheckpointVerdict::Saved,
                false => CheckpointVerdict::NotAhead,
            };
            verdicts.insert((StepId::from_uuid(row.id), row.attempt as u32), saved);
        }
        Ok(verdicts)
    }

    /// The last checkpoint of a step.
    pub async fn load_checkpoint(
        &self,
        namespace: &Namespace,
        step: StepId,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let row = sqlx::query!(
            r#"select c.cursor::text as "cursor!", c.items_processed,
                      c.accumulated::text as "accumulated!", c.created_at
               from tasker.checkpoints c
               join tasker.steps s on s.id = c.step_id
               where c.step_id = $1 and s.namespace = $2"#,
            step.as_uuid(),
            namespace.as_str(),
        )
        .fetch_optional(&self.hot)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let json = |text: &str| {
            serde_json::from_str(text).map_err(|e| StoreError::stored("checkpoint", e))
        };
        Ok(Some(Checkpoint {
            cursor: json(&row.cursor)?,
            items_processed: row.items_processed as u64,
            accumulated_results: json(&row.accumulated)?,
            timestamp: Some(rfc3339(row.created_at)),
        }))
    }
}
