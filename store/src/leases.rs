//! Leases of running steps, renewed by heartbeats.

use tasker_messages::{Namespace, RunningStep, WorkerId};
use uuid::Uuid;

use crate::pool::commit;
use crate::{Store, StoreError};

impl Store {
    /// Records that a worker runs these attempts: state `in_progress` and a lease. Attempts that
    /// are no longer current, and steps that have ended, are passed over.
    pub async fn renew_leases(
        &self,
        namespace: &Namespace,
        worker: WorkerId,
        running: &[RunningStep],
        lease_ms: u64,
    ) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = running.iter().map(|r| r.step_id.as_uuid()).collect();
        let attempts: Vec<i32> = running.iter().map(|r| r.attempt as i32).collect();
        let mut tx = self.hot.begin().await?;
        sqlx::query_file_scalar!("queries/outcomes/lock_steps.sql", &ids, namespace.as_str())
            .fetch_all(&mut *tx)
            .await?;
        let tasks = sqlx::query_file_scalar!(
            "queries/claims/renew_leases.sql",
            &ids,
            &attempts,
            namespace.as_str(),
            worker.as_uuid(),
            lease_ms as f64 / 1000.0,
        )
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query!(
            "update tasker.tasks set state = 'in_progress'
             where id = any($1::uuid[]) and state = 'pending'",
            &tasks
        )
        .execute(&mut *tx)
        .await?;
        commit(tx).await
    }
}
