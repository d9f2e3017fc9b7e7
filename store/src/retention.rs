//! Retention: finished tasks are taken out of sight, many by one statement, and then deleted chunk by
//! chunk with all that belongs to them.
//!
//! Both can be broken off at any moment and done by any number of nodes at the same time. In between, a
//! task is in `expired_tasks` and its steps are nobody's: nothing that lives leads to them.

use std::time::Duration;

use tasker_messages::{BatchId, StepId, TaskId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::pool::{Tx, commit, retry_conflicts};
use crate::{Store, StoreError};

/// Which finished tasks are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// The last of them, in the order of their acceptance.
    pub upto: TaskId,
    /// How long they have been finished at least.
    pub finished_for: Duration,
}

/// What looking at tasks has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// How many were taken out of sight.
    pub tasks: u64,
    /// Behind which one to go on; `None` if that was all.
    pub next: Option<TaskId>,
}

/// What deleting a chunk has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// How many steps were deleted.
    pub rows: u64,
    /// Whether something may be left to delete.
    pub more: bool,
}

/// Tasks that one transaction deletes from: with one by one, many small ones would take a commit each.
const MAX_TASKS: usize = 256;

/// Longer than any task has been there, and short enough to be taken off a time of Postgres.
const LONGEST_AGE: Duration = Duration::from_secs(1_000 * 366 * 24 * 3_600);

impl Expiry {
    /// Tasks that have been finished for so long. Ids tell when they were made: none that is younger need
    /// be looked at.
    pub fn by_age(age: Duration) -> Self {
        let age = age.min(LONGEST_AGE);
        let now_ms = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        let made_ms = u128::try_from(now_ms).unwrap_or(0).saturating_sub(age.as_millis());
        // An id is 48 bits of milliseconds and what makes it different from others.
        let upto = (made_ms << 80) | (u128::MAX >> 48);
        Self { upto: TaskId::from_uuid(Uuid::from_u128(upto)), finished_for: age }
    }
}

/// A task that is being deleted.
struct ExpiredTask {
    task_id: Uuid,
    purged_upto: Option<Uuid>,
}

/// A batch of such a task.
struct ExpiredBatch {
    id: BatchId,
    task: Uuid,
    /// Ordinals of members from which on, and up to which, they may be there.
    from: u32,
    upto: u32,
}

/// What one transaction deletes.
#[derive(Default)]
struct Chunk {
    steps: Vec<Uuid>,
    /// Batches of which no member is left.
    batches: Vec<Uuid>,
    /// Up to which member another batch is deleted, and its task.
    reached: Option<(Uuid, Uuid)>,
    /// Tasks of which nothing is left.
    tasks: Vec<Uuid>,
}

impl Chunk {
    /// Takes members of these batches, one batch after the other, as far as there is room. Answers whether
    /// that were all of them.
    fn take_members(&mut self, batches: &[ExpiredBatch], room: usize) -> bool {
        for batch in batches {
            let free = u32::try_from(room - self.steps.len()).unwrap_or(u32::MAX);
            let upto = batch.upto.min(batch.from.saturating_add(free));
            self.steps.extend((batch.from..upto).map(|n| batch.id.member(n).as_uuid()));
            if upto < batch.upto {
                let last = (upto > batch.from).then(|| batch.id.member(upto - 1).as_uuid());
                self.reached = last.map(|last| (batch.task, last));
                return false;
            }
            self.batches.push(batch.id.as_uuid());
        }
        true
    }
}

impl Store {
    /// The newest task of which so many newer ones are finished; `None` if there are not so many. Reads as
    /// many.
    pub async fn find_surplus(&self, kept: u32) -> Result<Option<TaskId>, StoreError> {
        let id = sqlx::query_scalar!(
            "select id from tasker.tasks where finished_at is not null
             order by id desc offset $1 limit 1",
            i64::from(kept)
        )
        .fetch_optional(&self.hot)
        .await?;
        Ok(id.map(TaskId::from_uuid))
    }

    /// Takes finished tasks out of sight, of at most so many behind `after`, unless somebody works on them
    /// or has to decide about them.
    pub async fn expire_tasks(
        &self,
        which: Expiry,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<Expired, StoreError> {
        retry_conflicts(|| self.expire_once(which, after, limit)).await
    }

    async fn expire_once(
        &self,
        which: Expiry,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<Expired, StoreError> {
        let mut tx = self.hot.begin().await?;
        let seen = sqlx::query_file!(
            "queries/retention/look.sql",
            after.map_or(Uuid::nil(), TaskId::as_uuid),
            which.upto.as_uuid(),
            i64::from(limit),
            which.finished_for.as_secs_f64(),
        )
        .fetch_all(&mut *tx)
        .await?;
        let over: Vec<Uuid> = seen.iter().filter(|task| task.over).map(|task| task.id).collect();
        let expired = sqlx::query_file!("queries/retention/expire.sql", &over);
        let tasks = expired.execute(&mut *tx).await?.rows_affected();
        commit(tx).await?;
        let last = seen.last().filter(|_| seen.len() as u64 >= u64::from(limit));
        Ok(Expired { tasks, next: last.map(|task| TaskId::from_uuid(task.id)) })
    }

    /// Deletes at most so many steps of tasks that are out of sight, with all that belongs to them.
    pub async fn purge_expired(&self, chunk_rows: u32) -> Result<Purged, StoreError> {
        retry_conflicts(|| self.purge_once(chunk_rows.max(1) as usize)).await
    }

    async fn purge_once(&self, room: usize) -> Result<Purged, StoreError> {
        let mut tx = self.hot.begin().await?;
        let tasks = sqlx::query_as!(
            ExpiredTask,
            "select task_id, purged_upto from tasker.expired_tasks
             order by task_id limit $1 for update skip locked",
            MAX_TASKS as i64
        )
        .fetch_all(&mut *tx)
        .await?;
        if tasks.is_empty() {
            return Ok(Purged::default());
        }
        let chunk = next_chunk(&mut tx, &tasks, room).await?;
        let rows = sqlx::query_file!("queries/retention/purge.sql", &chunk.steps)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        sqlx::query_file!(
            "queries/retention/tidy.sql",
            &chunk.batches,
            &chunk.tasks,
            chunk.reached.map(|(task, _)| task),
            chunk.reached.map(|(_, upto)| upto),
        )
        .execute(&mut *tx)
        .await?;
        commit(tx).await?;
        Ok(Purged { rows, more: chunk.tasks.len() < tasks.len() || tasks.len() == MAX_TASKS })
    }
}

/// Members come first, since only their batches tell where they are, and the steps that have made the
/// batches last.
async fn next_chunk(tx: &mut Tx, tasks: &[ExpiredTask], room: usize) -> Result<Chunk, StoreError> {
    let mut chunk = Chunk::default();
    let ids: Vec<Uuid> = tasks.iter().map(|task| task.task_id).collect();
    let batches = load_batches(tx, tasks, &ids, room).await?;
    let are_all = batches.len() < room;
    if !chunk.take_members(&batches, room) || !are_all {
        return Ok(chunk);
    }
    let free = room - chunk.steps.len();
    let steps = sqlx::query_file_scalar!("queries/retention/steps.sql", &ids, free as i64)
        .fetch_all(&mut **tx)
        .await?;
    if steps.len() < free {
        chunk.tasks = ids;
    }
    chunk.steps.extend(steps);
    Ok(chunk)
}

/// Batches of these tasks in the order of their ids, which is that of their members. One that was never
/// sealed has lost its members when it was settled.
async fn load_batches(
    tx: &mut Tx,
    tasks: &[ExpiredTask],
    ids: &[Uuid],
    limit: usize,
) -> Result<Vec<ExpiredBatch>, StoreError> {
    let rows = sqlx::query!(
        r#"select id, task_id, case when sealed_at is null then 0 else expected end as "members!"
           from tasker.batches where task_id = any($1::uuid[]) order by id limit $2"#,
        ids,
        limit as i64
    )
    .fetch_all(&mut **tx)
    .await?;
    let batch = |id: Uuid, task: Uuid, members: i32| {
        let id = BatchId::from_uuid(id);
        let upto = members as u32;
        let purged = tasks.iter().find(|expired| expired.task_id == task);
        let purged = purged.and_then(|expired| expired.purged_upto).map(StepId::from_uuid);
        let from = purged.filter(|last| last.family() == id.family());
        ExpiredBatch { id, task, from: from.map_or(0, |last| last.ordinal() + 1).min(upto), upto }
    };
    Ok(rows.into_iter().map(|row| batch(row.id, row.task_id, row.members)).collect())
}
