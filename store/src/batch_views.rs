//! Batches for the API, and a batch held against its members.

use serde::Deserialize;
use sqlx::{PgConnection, PgPool};
use tasker_messages::{BatchAudit, BatchId, BatchView, TaskId};
use tasker_workflow::batching::{Break, MemberFacts, audit};
use uuid::Uuid;

use crate::pool::{Tx, commit};
use crate::views::parse;
use crate::{Store, StoreError};

/// One row of `queries/views/batches.sql`.
struct Row {
    id: Uuid,
    batchable_step: String,
    worker_template: String,
    state: String,
    expected: i32,
    published_upto: i32,
    succeeded: i32,
    failed: i32,
    remaining: i32,
    is_no_op: bool,
    stopped: bool,
}

impl Row {
    fn view(self) -> Result<BatchView, StoreError> {
        Ok(BatchView {
            id: BatchId::from_uuid(self.id),
            batchable_step: self.batchable_step,
            worker_template: self.worker_template,
            state: parse("batch state", &self.state)?,
            expected: self.expected as u32,
            // A small batch may have ended before its publication is recorded.
            published: self.published_upto.max(self.succeeded + self.failed) as u32,
            succeeded: self.succeeded as u32,
            failed: self.failed as u32,
            remaining: self.remaining as u32,
            is_no_op: self.is_no_op,
        })
    }
}

/// A [`Break`] as the database writes it.
#[derive(Deserialize)]
struct BreakRow {
    batch_id: Option<String>,
    start: String,
    end: String,
    overlaps: bool,
}

impl From<BreakRow> for Break {
    fn from(row: BreakRow) -> Self {
        let BreakRow { batch_id, start, end, overlaps } = row;
        Break { batch_id: batch_id.unwrap_or_default(), start, end, overlaps }
    }
}

impl Store {
    /// The batches of a task that are sealed or being expanded.
    pub(crate) async fn view_batches(&self, task: TaskId) -> Result<Vec<BatchView>, StoreError> {
        Ok(self.batches_and_stops(task).await?.into_iter().map(|(batch, _)| batch).collect())
    }

    /// The batches of a task, and whether each was stopped by its failures.
    pub(crate) async fn batches_and_stops(
        &self,
        task: TaskId,
    ) -> Result<Vec<(BatchView, bool)>, StoreError> {
        let mut connection = self.reads.lend().await?;
        let rows =
            sqlx::query_file_as!(Row, "queries/views/batches.sql", task.as_uuid(), None::<Uuid>)
                .fetch_all(&mut *connection)
                .await?;
        connection.give_back();
        let with_stop = |row: Row| {
            let stopped = row.stopped;
            Ok((row.view()?, stopped))
        };
        rows.into_iter().map(with_stop).collect()
    }

    /// The namespace of a batch; `None` if there is none of this id.
    pub async fn namespace_of_batch(&self, id: BatchId) -> Result<Option<String>, StoreError> {
        let mut connection = self.reads.lend().await?;
        let found = sqlx::query_scalar!(
            "select b.namespace from tasker.batches b join tasker.tasks t on t.id = b.task_id
             where b.id = $1",
            id.as_uuid()
        )
        .fetch_optional(&mut *connection)
        .await?;
        connection.give_back();
        Ok(found)
    }

    /// One batch; `None` if there is none of this id.
    pub async fn view_batch(&self, id: BatchId) -> Result<Option<BatchView>, StoreError> {
        let mut connection = self.api.acquire().await?;
        load(&mut connection, id).await
    }

    /// Holds a batch against its members, in one snapshot; `None` if there is none of this id.
    pub async fn audit_batch(&self, id: BatchId) -> Result<Option<BatchAudit>, StoreError> {
        let mut tx = snapshot(&self.api).await?;
        let Some(batch) = load(&mut tx, id).await? else { return Ok(None) };
        let row = sqlx::query_file!(
            "queries/views/audit.sql",
            id.as_uuid(),
            id.member(0).as_uuid(),
            id.member(u32::MAX).as_uuid(),
            i64::from(batch.expected),
        )
        .fetch_one(&mut *tx)
        .await?;
        commit(tx).await?;
        let breaks: Vec<BreakRow> =
            serde_json::from_str(&row.breaks).map_err(|e| StoreError::stored("ranges", e))?;
        let facts = MemberFacts {
            sealed: row.sealed,
            members: row.members as u64,
            in_range: row.in_range as u64,
            batch_ids: row.batch_ids as u64,
            succeeded: row.succeeded as u64,
            failed: row.failed as u64,
            cancelled: row.cancelled as u64,
            unfenced: row.unfenced as u64,
            number_ranges: row.ranges as u64,
            breaks: breaks.into_iter().map(Break::from).collect(),
        };
        let checks = audit(&batch, &facts);
        Ok(Some(BatchAudit { ok: checks.iter().all(|check| check.ok), batch, checks }))
    }
}

/// A transaction whose statements all see the same.
async fn snapshot(pool: &PgPool) -> Result<Tx, StoreError> {
    let mut tx = pool.begin().await?;
    sqlx::query!("set transaction isolation level repeatable read, read only")
        .execute(&mut *tx)
        .await?;
    Ok(tx)
}

async fn load(connection: &mut PgConnection, id: BatchId) -> Result<Option<BatchView>, StoreError> {
    let row = sqlx::query_file_as!(Row, "queries/views/batches.sql", None::<Uuid>, id.as_uuid())
        .fetch_optional(connection)
        .await?;
    row.map(Row::view).transpose()
}
