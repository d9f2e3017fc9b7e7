//! Workers as their heartbeats describe them.

use tasker_messages::{Heartbeat, Namespace};

use crate::{Store, StoreError};

impl Store {
    /// Records a sign of life.
    pub async fn record_heartbeat(
        &self,
        namespace: &Namespace,
        beat: &Heartbeat,
    ) -> Result<(), StoreError> {
        let queues =
            serde_json::to_value(&beat.queues).map_err(|e| StoreError::stored("queues", e))?;
        sqlx::query!(
            "insert into tasker.workers
                 (id, namespace, name, build, queues, callables, draining)
             values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (id, namespace) do update
             set queues = excluded.queues, callables = excluded.callables,
                 draining = excluded.draining, last_beat_at = now()",
            beat.worker.as_uuid(),
            namespace.as_str(),
            beat.name,
            beat.build,
            queues,
            &beat.callables,
            beat.draining,
        )
        .execute(&self.api)
        .await?;
        Ok(())
    }

    /// Forgets workers that have been silent for an hour.
    pub async fn forget_silent_workers(&self) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "delete from tasker.workers where last_beat_at < now() - interval '1 hour'"
        )
        .execute(&self.api)
        .await?;
        Ok(done.rows_affected())
    }
}
