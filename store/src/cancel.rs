//! Ending a task before its steps have ended: nothing new of it starts; what has no outcome gets one.

use tasker_messages::{BatchId, Namespace, StepFailure, TaskId, TaskState};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::pool::{Tx, commit, retry_conflicts};
use crate::{Store, StoreError};

/// What became of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelled {
    /// The task is cancelled by this call.
    Now {
        /// Its namespace.
        namespace: Namespace,
    },
    /// The task had ended before.
    Ended(TaskState),
    /// There is no such task.
    Unknown,
}

/// Why a task ends before its steps have ended.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// Somebody asked for it.
    Cancelled { principal: String, reason: Option<String> },
    /// It passed a limit of time, as somebody saw who had it to look at until then.
    Stale { failure: StepFailure, dead_letter: bool, check_at: OffsetDateTime },
}

/// An [`Ending`] as it is stored.
struct Columns<'a> {
    state: TaskState,
    action: &'static str,
    principal: &'a str,
    reason: Option<&'a str>,
    error: Option<serde_json::Value>,
    dead_letter: bool,
}

impl Ending {
    fn columns(&self) -> Result<Columns<'_>, StoreError> {
        Ok(match self {
            Ending::Cancelled { principal, reason } => Columns {
                state: TaskState::Cancelled,
                action: "cancel_task",
                principal,
                reason: reason.as_deref(),
                error: None,
                dead_letter: false,
            },
            Ending::Stale { failure, dead_letter, .. } => Columns {
                state: TaskState::Error,
                action: "end_stale_task",
                principal: "lifecycle",
                reason: Some(&failure.message),
                error: Some(
                    serde_json::to_value(failure).map_err(|e| StoreError::stored("error", e))?,
                ),
                dead_letter: *dead_letter,
            },
        })
    }
}

impl Store {
    /// Cancels a task. Members of its batches get their outcomes in chunks, afterwards:
    /// [`Store::cancel_members`].
    pub async fn cancel_task(
        &self,
        id: TaskId,
        principal: &str,
        reason: Option<&str>,
    ) -> Result<Cancelled, StoreError> {
        let ending = Ending::Cancelled {
            principal: principal.to_owned(),
            reason: reason.map(str::to_owned),
        };
        self.end_task(id, &ending).await
    }

    /// Ends a task before its steps have ended.
    pub(crate) async fn end_task(
        &self,
        id: TaskId,
        ending: &Ending,
    ) -> Result<Cancelled, StoreError> {
        retry_conflicts(|| self.end_once(id, ending)).await
    }

    async fn end_once(&self, id: TaskId, ending: &Ending) -> Result<Cancelled, StoreError> {
        let mut tx = self.hot.begin().await?;
        let task = id.as_uuid();
        lock_of_task(&mut tx, task).await?;
        let row = sqlx::query!(
            r#"select namespace, state::text as "state!", finished_at is not null as "ended!",
                      check_at
               from tasker.tasks where id = $1 for no key update"#,
            task
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(Cancelled::Unknown) };
        if row.ended {
            let state = row.state.parse().map_err(|e| StoreError::stored("task state", e))?;
            return Ok(Cancelled::Ended(state));
        }
        if let Ending::Stale { check_at, .. } = ending
            && row.check_at != Some(*check_at)
        {
            // Its times have begun anew, or another node looks at it.
            let state = row.state.parse().map_err(|e| StoreError::stored("task state", e))?;
            return Ok(Cancelled::Ended(state));
        }
        let Columns { state, action, principal, reason, error, dead_letter } = ending.columns()?;
        sqlx::query_file!(
            "queries/batches/cancel_task.sql",
            task,
            principal,
            reason,
            state.as_str(),
            action,
            error,
            dead_letter,
        )
        .execute(&mut *tx)
        .await?;
        commit(tx).await?;
        let namespace =
            Namespace::new(&row.namespace).map_err(|e| StoreError::stored("namespace", e))?;
        Ok(Cancelled::Now { namespace })
    }

    /// Gives `cancelled` outcomes to members of cancelled and stopped batches that have none, at most
    /// so many; removes the members of expansions that were cancelled. Returns whether anything was changed,
    /// so that more may be left.
    pub async fn cancel_members(&self, limit: u32) -> Result<bool, StoreError> {
        let batches = sqlx::query_scalar!(
            "select id from tasker.batches
             where not settled
               and (state = 'cancelled' or state = 'failed' and remaining > 0)
             order by id limit 16"
        )
        .fetch_all(&self.hot)
        .await?;
        let mut changed = false;
        for id in batches {
            changed |= self.cancel_chunk(BatchId::from_uuid(id), limit).await?;
        }
        Ok(changed)
    }

    async fn cancel_chunk(&self, batch: BatchId, limit: u32) -> Result<bool, StoreError> {
        retry_conflicts(|| async {
            let mut tx = self.hot.begin().await?;
            let (low, high) = (batch.member(0).as_uuid(), batch.member(u32::MAX).as_uuid());
            let sealed = sqlx::query_scalar!(
                r#"select sealed_at is not null as "sealed!" from tasker.batches where id = $1"#,
                batch.as_uuid()
            )
            .fetch_one(&mut *tx)
            .await?;
            let limit = i64::from(limit);
            let changed = if sealed {
                sqlx::query_file_scalar!("queries/batches/cancel_members.sql", low, high, limit)
                    .fetch_all(&mut *tx)
                    .await?
                    .len()
            } else {
                sqlx::query_file_scalar!("queries/batches/delete_members.sql", low, high, limit)
                    .fetch_all(&mut *tx)
                    .await?
                    .len()
            };
            // A sealed batch is done with when every member has an outcome, one that is not when it
            // has no member left. A batch that was stopped is settled by converging: its task lives.
            let counted = if sealed { changed as i32 } else { 0 };
            // A batch that was retried meanwhile is none of this any more: then nothing happens.
            let counted = sqlx::query!(
                "update tasker.batches
                 set remaining = remaining - $2,
                     settled = state = 'cancelled' and case when $3 then remaining = $2 else $4 end
                 where id = $1 and not settled and state in ('cancelled', 'failed')",
                batch.as_uuid(),
                counted,
                sealed,
                (changed as i64) < limit,
            )
            .execute(&mut *tx)
            .await?;
            if counted.rows_affected() == 0 {
                tx.rollback().await?;
                return Ok(false);
            }
            commit(tx).await?;
            Ok(changed > 0)
        })
        .await
    }
}

async fn lock_of_task(tx: &mut Tx, task: Uuid) -> Result<(), StoreError> {
    sqlx::query_scalar!(
        "select id from tasker.steps where task_id = $1 and batch_id is null
         order by id for no key update",
        task
    )
    .fetch_all(&mut **tx)
    .await?;
    sqlx::query_scalar!(
        "select id from tasker.batches where task_id = $1 order by id for no key update",
        task
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(())
}
