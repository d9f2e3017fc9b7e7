//! Expansion of batchable steps: batch and members, all or none.
//!
//! A small batch is written and sealed by one transaction, many batches at a time. A large one is
//! written in chunks while it is `expanding`, invisible to everything else, and sealed by the last.

use std::collections::HashSet;
use std::time::Instant;

use tasker_guards::{CrashPoint, pass};
use tasker_messages::{BatchId, Namespace, NodeId, StepId, TaskId, TemplateId};
use uuid::Uuid;

use crate::counters::FinishedTask;
use crate::cursors::read_pages;
use crate::member_rows::MemberRows;
use crate::pool::{Tx, commit, retry_conflicts};
use crate::sealing::{insert_expanding, insert_sealed, release_sealed, settle_expanded};
use crate::{NewBatch, NewMember, OpenBatch, ReadyStep, Store, StoreError};

/// A batchable step whose stored outcome waits to be expanded.
#[derive(Debug, Clone)]
pub struct Expandable {
    /// The step.
    pub step_id: StepId,
    /// Its task.
    pub task_id: TaskId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The task's priority.
    pub priority: i8,
    /// The task's template.
    pub template_id: TemplateId,
    /// The step's name.
    pub name: String,
    /// The attempt that ended the step; fences appended cursors.
    pub attempt: u32,
    /// The stored result as JSON text.
    pub result: String,
    /// How many cursors that attempt has appended in gap-free pages, if any.
    pub appended: Option<u32>,
    /// The batch, if an expansion has begun.
    pub batch: Option<ExpandingBatch>,
}

/// An expansion in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpandingBatch {
    /// The batch.
    pub id: BatchId,
    /// How many members are written.
    pub expanded_upto: u32,
}

/// Where the members of a chunk come from.
#[derive(Debug)]
pub enum MemberSource {
    /// They are given.
    Given(Vec<NewMember>),
    /// They were appended by the analyzer; the chunk is the next pages.
    Appended {
        /// The analyzer's step.
        step_id: StepId,
        /// The attempt that appended them.
        attempt: u32,
        /// The template step of the members.
        worker_template: String,
        /// Most members of the chunk; a page is never split.
        limit: u32,
    },
}

/// Members of an expanding batch that are written but not committed.
#[derive(Debug)]
pub struct Chunk {
    tx: Tx,
    batch: BatchId,
    from: u32,
    upto: u32,
}

impl Chunk {
    /// Makes the members part of the batch if it still stands where they begin. Returns where it
    /// stands then; `None` if it was stopped or another expansion was faster, so that nothing of
    /// the chunk is kept.
    pub async fn commit(mut self) -> Result<Option<u32>, StoreError> {
        let upto = sqlx::query_scalar!(
            "update tasker.batches set expanded_upto = $3, touched_at = now()
             where id = $1 and state = 'expanding' and expanded_upto = $2
             returning expanded_upto",
            self.batch.as_uuid(),
            self.from as i32,
            self.upto as i32,
        )
        .fetch_optional(&mut *self.tx)
        .await?;
        match upto {
            Some(upto) => {
                commit(self.tx).await?;
                Ok(Some(upto as u32))
            }
            None => {
                self.tx.rollback().await?;
                Ok(None)
            }
        }
    }
}

/// What a sealing transaction has changed.
#[derive(Debug, Default)]
pub struct Sealed {
    /// Batches that were sealed by it.
    pub batches: Vec<BatchId>,
    /// Children of the analyzers that have become ready.
    pub ready: Vec<ReadyStep>,
    /// Tasks that have ended.
    pub finished_tasks: Vec<FinishedTask>,
}

impl Store {
    /// Batchable steps among these that have a stored success and no sealed batch.
    pub async fn load_expandable(&self, steps: &[StepId]) -> Result<Vec<Expandable>, StoreError> {
        let ids: Vec<Uuid> = steps.iter().map(|s| s.as_uuid()).collect();
        let rows = sqlx::query_file!("queries/batches/load_expandable.sql", &ids)
            .fetch_all(&self.hot)
            .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let namespace = Namespace::new(&row.namespace);
            found.push(Expandable {
                step_id: StepId::from_uuid(row.id),
                task_id: TaskId::from_uuid(row.task_id),
                namespace: namespace.map_err(|e| StoreError::stored("namespace", e))?,
                priority: row.priority as i8,
                template_id: TemplateId::from_uuid(row.template_id),
                name: row.name,
                attempt: row.attempt as u32,
                result: row.result,
                appended: row.appended.map(|n| n as u32),
                batch: row.batch_id.map(|id| ExpandingBatch {
                    id: BatchId::from_uuid(id),
                    expanded_upto: row.expanded_upto.unwrap_or(0) as u32,
                }),
            });
        }
        Ok(found)
    }

    /// Writes and seals batches with all their members in one transaction. Steps that have a batch
    /// already, or whose task has ended, are passed over.
    pub async fn seal_new_batches(&self, batches: &[NewBatch]) -> Result<Sealed, StoreError> {
        self.seal_new(batches, None).await
    }

    /// The same, with this node as the publisher of what it seals, for so long. Also returns the batches as
    /// whoever publishes them needs them, so that they need not be read.
    pub async fn seal_to_publish(
        &self,
        batches: &[NewBatch],
        node: NodeId,
        lease_ms: u64,
    ) -> Result<(Sealed, Vec<OpenBatch>), StoreError> {
        // Before the rows are there, nobody publishes them.
        let known_since = Instant::now();
        let sealed = self.seal_new(batches, Some((node, lease_ms))).await?;
        let mine = batches.iter().filter(|batch| sealed.batches.contains(&batch.id));
        let open = mine.map(|batch| batch.open(known_since)).collect::<Result<_, _>>()?;
        Ok((sealed, open))
    }

    async fn seal_new(
        &self,
        batches: &[NewBatch],
        publisher: Option<(NodeId, u64)>,
    ) -> Result<Sealed, StoreError> {
        retry_conflicts(|| async {
            let mut tx = self.hot.begin().await?;
            let open = lock_unsettled(&mut tx, batches.iter().map(|b| b.batchable_step)).await?;
            let mine: Vec<&NewBatch> =
                batches.iter().filter(|b| open.contains(&b.batchable_step)).collect();
            let settled = insert_sealed(&mut tx, &mine, publisher).await?;
            let sealed = release_sealed(&mut tx, settled).await?;
            pass(CrashPoint::SealWritten);
            commit(tx).await?;
            pass(CrashPoint::SealStored);
            Ok(sealed)
        })
        .await
    }

    /// Writes a batch that will be expanded in chunks; returns the one that exists if another
    /// expansion has begun, and nothing if the step needs no expansion any more.
    pub async fn begin_expansion(
        &self,
        batch: &NewBatch,
    ) -> Result<Option<ExpandingBatch>, StoreError> {
        let mut tx = self.hot.begin().await?;
        let open = lock_unsettled(&mut tx, [batch.batchable_step]).await?;
        if !open.contains(&batch.batchable_step) {
            return Ok(None);
        }
        insert_expanding(&mut tx, batch).await?;
        let row = sqlx::query!(
            "select id, expanded_upto from tasker.batches
             where batchable_step_id = $1 and namespace = $2 and state = 'expanding'",
            batch.batchable_step.as_uuid(),
            batch.namespace.as_str(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        commit(tx).await?;
        Ok(row.map(|row| ExpandingBatch {
            id: BatchId::from_uuid(row.id),
            expanded_upto: row.expanded_upto as u32,
        }))
    }

    /// Writes a chunk of an expanding batch that begins at `from`, in a transaction that is left
    /// open: [`Chunk::commit`] ends it. Chunks may be written at the same time and must be
    /// committed in order. `None` if the batch is no longer expanding or stands beyond `from`, or if
    /// another expansion is at it: only the first of the chunks, which is to `lead`, finds out.
    pub async fn write_chunk(
        &self,
        batch: &NewBatch,
        id: BatchId,
        from: u32,
        source: &MemberSource,
        lead: bool,
    ) -> Result<Option<Chunk>, StoreError> {
        let mut tx = self.hot.begin().await?;
        if lead && !lock_expanding(&mut tx, id).await? {
            return Ok(None);
        }
        let stands = sqlx::query_scalar!(
            "select expanded_upto from tasker.batches
             where id = $1 and namespace = $2 and state = 'expanding'",
            id.as_uuid(),
            batch.namespace.as_str(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        if stands.is_none_or(|stands| stands as u32 > from) {
            return Ok(None);
        }
        let appended;
        let members = match source {
            MemberSource::Given(members) => members,
            MemberSource::Appended { step_id, attempt, worker_template, limit } => {
                let span = (from, *limit);
                appended = read_pages(&mut tx, *step_id, *attempt, worker_template, span).await?;
                &appended
            }
        };
        let mut rows = MemberRows::default();
        for (ordinal, member) in (from..batch.expected).zip(members) {
            rows.push(&batch.namespace, batch.task_id, id, ordinal, member);
        }
        rows.insert(&mut tx).await?;
        let upto = batch.expected.min(from + members.len() as u32);
        Ok(Some(Chunk { tx, batch: id, from, upto }))
    }

    /// Seals a batch whose members are all written. Nothing changes if it is sealed already or the
    /// task has ended.
    pub async fn seal_expanded(
        &self,
        batchable_step: StepId,
        id: BatchId,
    ) -> Result<Sealed, StoreError> {
        retry_conflicts(|| async {
            let mut tx = self.hot.begin().await?;
            let open = lock_unsettled(&mut tx, [batchable_step]).await?;
            let settled = match open.contains(&batchable_step) {
                true => settle_expanded(&mut tx, batchable_step, id).await?,
                false => None,
            };
            let sealed = release_sealed(&mut tx, settled.into_iter().collect()).await?;
            pass(CrashPoint::SealWritten);
            commit(tx).await?;
            pass(CrashPoint::SealStored);
            Ok(sealed)
        })
        .await
    }

    /// Expansions of any node that have not moved for this long, and stored batchable outcomes that
    /// no expansion has begun for.
    pub async fn find_stalled_expansions(
        &self,
        older_than_ms: u64,
        limit: u32,
    ) -> Result<Vec<StepId>, StoreError> {
        let ids = sqlx::query_file_scalar!(
            "queries/batches/stalled_expansions.sql",
            older_than_ms as f64 / 1000.0,
            i64::from(limit),
        )
        .fetch_all(&self.hot)
        .await?;
        Ok(ids.into_iter().map(StepId::from_uuid).collect())
    }
}

/// Locks a batch that is being expanded; `false` if another transaction has it.
async fn lock_expanding(tx: &mut Tx, id: BatchId) -> Result<bool, StoreError> {
    let locked = sqlx::query_scalar!(
        "select id from tasker.batches where id = $1 for no key update skip locked",
        id.as_uuid(),
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(locked.is_some())
}

/// Locks steps and returns those that are unsettled, ended well and belong to a live task.
async fn lock_unsettled(
    tx: &mut Tx,
    steps: impl IntoIterator<Item = StepId>,
) -> Result<HashSet<StepId>, StoreError> {
    let ids: Vec<Uuid> = steps.into_iter().map(StepId::as_uuid).collect();
    sqlx::query_scalar!(
        "select id from tasker.steps where id = any($1::uuid[]) order by id for no key update",
        &ids
    )
    .fetch_all(&mut **tx)
    .await?;
    let open = sqlx::query_scalar!(
        r#"select s.id as "id!"
         from unnest($1::uuid[]) as i(id)
         cross join lateral (
             select id, task_id from tasker.steps
             where id = i.id and unsettled and kind = 'batchable'
             offset 0
         ) s
         cross join lateral (
             select from tasker.outcomes where step_id = s.id and state = 'complete' offset 0
         ) o
         cross join lateral (
             select from tasker.tasks
             where id = s.task_id and state in ('pending', 'in_progress')
             offset 0
         ) t"#,
        &ids
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(open.into_iter().map(StepId::from_uuid).collect())
}
