//! Rows against the bus: what should be on it, and sending it again.

use tasker_messages::{Namespace, Queue, StepId};
use uuid::Uuid;

use crate::dispatch::{namespace, queue};
use crate::pool::{commit, retry_conflicts};
use crate::{Store, StoreError};

/// How many steps of one queue are on the bus, as the rows say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatched {
    /// The namespace.
    pub namespace: Namespace,
    /// The queue.
    pub queue: Queue,
    /// Published, without an outcome.
    pub outstanding: u64,
}

/// Steps that may have been lost by the bus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// The steps, oldest first.
    pub steps: Vec<StepId>,
}

/// What is known of an incarnation of the stream of work items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochState {
    /// It is the first that this database has seen: nothing can have been lost with an earlier one.
    First,
    /// It is new or not worked off: everything outstanding is to be sent again.
    Open,
    /// Everything outstanding has been sent to it.
    Done,
}

impl Store {
    /// Published steps without an outcome, by namespace and queue. Its cost grows with the number
    /// of live tasks and open batches, not with the number of members.
    pub async fn count_dispatched(&self) -> Result<Vec<Dispatched>, StoreError> {
        let rows = sqlx::query_file!("queries/reconcile/count_dispatched.sql")
            .fetch_all(&self.hot)
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Dispatched {
                    namespace: namespace(&row.namespace)?,
                    queue: queue(&row.queue)?,
                    outstanding: u64::try_from(row.outstanding).unwrap_or(0),
                })
            })
            .collect()
    }

    /// Published steps of a queue that no worker holds and that have no outcome, oldest first.
    pub async fn find_lost(
        &self,
        ns: &Namespace,
        queue: &Queue,
        older_than_ms: u64,
        limit: u32,
    ) -> Result<Lost, StoreError> {
        #[cfg(feature = "mutants")]
        if let Some(sql) = crate::mutants::FIND_LOST.mutated() {
            return crate::mutants::find_lost(self, ns, queue, older_than_ms, limit, sql).await;
        }
        let ids = sqlx::query_file_scalar!(
            "queries/reconcile/find_lost.sql",
            ns.as_str(),
            queue.as_str(),
            older_than_ms as f64 / 1000.0,
            i64::from(limit),
        )
        .fetch_all(&self.hot)
        .await?;
        Ok(Lost { steps: ids.into_iter().map(StepId::from_uuid).collect() })
    }

    /// Dispatches steps again, claim required: those that still have no outcome and no live lease.
    /// Returns how many.
    pub async fn redispatch(&self, ns: &Namespace, steps: &[StepId]) -> Result<u32, StoreError> {
        let ids: Vec<Uuid> = steps.iter().map(|s| s.as_uuid()).collect();
        retry_conflicts(|| async {
            let mut tx = self.hot.begin().await?;
            sqlx::query_file_scalar!("queries/outcomes/lock_steps.sql", &ids, ns.as_str())
                .fetch_all(&mut *tx)
                .await?;
            let sent =
                sqlx::query_file_scalar!("queries/reconcile/redispatch.sql", &ids, ns.as_str())
                    .fetch_all(&mut *tx)
                    .await?;
            commit(tx).await?;
            Ok(sent.len() as u32)
        })
        .await
    }

    /// What is known of the stream that was created at this time.
    pub async fn note_epoch(&self, created_ns: i64) -> Result<EpochState, StoreError> {
        let row = sqlx::query_file!("queries/reconcile/note_epoch.sql", created_ns)
            .fetch_one(&self.hot)
            .await?;
        Ok(match (row.state.as_str(), row.first) {
            ("done", _) => EpochState::Done,
            (_, true) => EpochState::First,
            (_, false) => EpochState::Open,
        })
    }

    /// Records that everything outstanding has been sent to this stream.
    pub async fn finish_epoch(&self, created_ns: i64) -> Result<(), StoreError> {
        sqlx::query!(
            "update tasker.bus_epochs set state = 'done', done_at = clock_timestamp()
             where stream_created_ns = $1 and state = 'open'",
            created_ns
        )
        .execute(&self.hot)
        .await?;
        Ok(())
    }
}
