//! Rows against the bus: what should be on it, and sending it again.

use std::time::Duration;

use sqlx::PgConnection;
use tasker_messages::{BatchId, Namespace, NodeId, Queue, Recovery, RecoveryKind, StepId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::dispatch::{namespace, queue};
use crate::pool::{commit, retry_conflicts};
use crate::views::rfc3339;
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
    /// The fewest messages that can have brought them.
    pub messages: u64,
    /// How many of them one message brings at most.
    pub bundled: u32,
}

/// How far a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundledBatch {
    /// The batch.
    pub id: BatchId,
    /// How many members were published.
    pub published: u32,
    /// How many have ended.
    pub ended: u32,
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

struct RecoveryRow {
    at: OffsetDateTime,
    kind: String,
    namespace: Option<String>,
    queue: Option<String>,
    steps: i32,
}

async fn record(
    connection: &mut PgConnection,
    node: NodeId,
    kind: RecoveryKind,
    place: Option<(&Namespace, &Queue)>,
    steps: u32,
) -> Result<(), StoreError> {
    metrics::counter!("tasker_reconciler_recoveries_total", "kind" => kind.as_str()).increment(1);
    sqlx::query_file!(
        "queries/reconcile/record_recovery.sql",
        node.as_uuid(),
        kind.as_str(),
        place.map(|(ns, _)| ns.as_str()),
        place.map(|(_, queue)| queue.as_str()),
        i32::try_from(steps).unwrap_or(i32::MAX),
    )
    .execute(connection)
    .await?;
    Ok(())
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
                    messages: u64::try_from(row.messages).unwrap_or(0),
                    bundled: row.bundled as u32,
                })
            })
            .collect()
    }

    /// Open batches of a queue of which a message has brought several members, and members are outstanding.
    pub async fn bundled_batches(
        &self,
        ns: &Namespace,
        queue: &Queue,
        limit: u32,
    ) -> Result<Vec<BundledBatch>, StoreError> {
        let rows = sqlx::query_file!(
            "queries/reconcile/bundled_batches.sql",
            ns.as_str(),
            queue.as_str(),
            i64::from(limit),
        )
        .fetch_all(&self.hot)
        .await?;
        let batches = rows.into_iter().map(|row| BundledBatch {
            id: BatchId::from_uuid(row.id),
            published: row.published_upto as u32,
            ended: row.ended as u32,
        });
        Ok(batches.collect())
    }

    /// Published steps of a queue that no worker holds and that have no outcome, oldest first: members of
    /// these batches, or all if none are named.
    pub async fn find_lost(
        &self,
        (ns, queue): (&Namespace, &Queue),
        batches: Option<&[BatchId]>,
        older_than_ms: u64,
        limit: u32,
    ) -> Result<Lost, StoreError> {
        let batches: Option<Vec<Uuid>> =
            batches.map(|ids| ids.iter().map(|id| id.as_uuid()).collect());
        #[cfg(feature = "mutants")]
        if let Some(sql) = crate::mutants::FIND_LOST.mutated() {
            let place = (ns, queue);
            return crate::mutants::find_lost(self, place, batches, older_than_ms, limit, sql)
                .await;
        }
        let ids = sqlx::query_file_scalar!(
            "queries/reconcile/find_lost.sql",
            ns.as_str(),
            queue.as_str(),
            older_than_ms as f64 / 1000.0,
            i64::from(limit),
            batches.as_deref(),
        )
        .fetch_all(&self.hot)
        .await?;
        Ok(Lost { steps: ids.into_iter().map(StepId::from_uuid).collect() })
    }

    /// Dispatches steps of a queue again, claim required: those that still have no outcome and no live
    /// lease. Returns how many; if there are any, it is recorded by whom and why.
    pub async fn redispatch(
        &self,
        (ns, queue): (&Namespace, &Queue),
        steps: &[StepId],
        (node, kind): (NodeId, RecoveryKind),
    ) -> Result<u32, StoreError> {
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
            let sent = sent.len() as u32;
            if sent > 0 {
                record(&mut tx, node, kind, Some((ns, queue)), sent).await?;
            }
            commit(tx).await?;
            Ok(sent)
        })
        .await
    }

    /// Records that something was mended without sending anything again.
    pub async fn record_recovery(
        &self,
        node: NodeId,
        kind: RecoveryKind,
        place: Option<(&Namespace, &Queue)>,
    ) -> Result<(), StoreError> {
        let mut connection = self.hot.acquire().await?;
        record(&mut connection, node, kind, place, 0).await
    }

    /// What was mended in the last `hours`, the last first.
    pub async fn list_recoveries(
        &self,
        hours: u32,
        limit: u32,
    ) -> Result<Vec<Recovery>, StoreError> {
        let rows = sqlx::query_as!(
            RecoveryRow,
            "select at, kind, namespace, queue, steps from tasker.recoveries
             where at > now() - make_interval(hours => $1) order by id desc limit $2",
            i32::try_from(hours).unwrap_or(i32::MAX),
            i64::from(limit),
        )
        .fetch_all(&self.api)
        .await?;
        let recovery = |row: RecoveryRow| {
            Ok(Recovery {
                at: rfc3339(row.at),
                kind: row.kind.parse().map_err(|e| StoreError::stored("recovery", e))?,
                namespace: row.namespace.as_deref().map(namespace).transpose()?,
                queue: row.queue.as_deref().map(queue).transpose()?,
                steps: row.steps as u32,
            })
        };
        rows.into_iter().map(recovery).collect()
    }

    /// How many steps more workers would take from a queue, as those said that were heard of lately.
    pub async fn free_slots(
        &self,
        ns: &Namespace,
        queue: &Queue,
        live_within: Duration,
    ) -> Result<u64, StoreError> {
        let free = sqlx::query_file_scalar!(
            "queries/reconcile/free_slots.sql",
            ns.as_str(),
            queue.as_str(),
            live_within.as_secs_f64(),
        )
        .fetch_one(&self.api)
        .await?;
        Ok(u64::try_from(free).unwrap_or(0))
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
