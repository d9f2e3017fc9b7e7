//! What is to be put on the bus: ready steps and members of sealed batches.

use std::sync::Arc;
use std::time::Instant;

use tasker_guards::{CrashPoint, pass};
use tasker_messages::{BatchId, Namespace, NodeId, Queue, StepId, TaskId};
use uuid::Uuid;

use crate::{Store, StoreError};

/// A ready step that is published by itself: no member, or a member that is sent again.
#[derive(Debug, Clone)]
pub struct ReadyStep {
    /// The step.
    pub id: StepId,
    /// Its task.
    pub task_id: TaskId,
    /// Its namespace.
    pub namespace: Namespace,
    /// Where its work items go.
    pub queue: Queue,
    /// The task's priority.
    pub priority: i8,
    /// The step's name.
    pub name: String,
    /// The step of the template.
    pub template_step: String,
    /// The current attempt.
    pub attempt: u32,
    /// The dispatch that is to be published.
    pub dispatch_seq: u32,
    /// How much of the retry budget is used up.
    pub tries: u32,
    /// Whether the worker must claim.
    pub claim_required: bool,
    /// The member's range as JSON text.
    pub cursor: Option<String>,
    /// A moment before anybody else could see the row like this. A copy that goes out much later may not be
    /// the first one.
    pub known_since: Instant,
}

impl ReadyStep {
    /// What the shared part of the step is found under: task and step of the template.
    pub fn shared_key(&self) -> (TaskId, String) {
        (self.task_id, self.template_step.clone())
    }
}

/// A sealed batch with members that were never published.
#[derive(Debug, Clone)]
pub struct OpenBatch {
    /// The batch.
    pub id: BatchId,
    /// Its task.
    pub task_id: TaskId,
    /// Its namespace.
    pub namespace: Namespace,
    /// Where its members' work items go.
    pub queue: Queue,
    /// The task's priority.
    pub priority: i8,
    /// The template step of the members.
    pub worker_template: String,
    /// How many members there are.
    pub expected: u32,
    /// How many are published.
    pub published_upto: u32,
    /// How many have ended.
    pub ended: u32,
    /// How many may be outstanding at a time.
    pub parallelism: Option<u32>,
    /// Whether somebody published before, perhaps this node: more may be on the bus than was recorded.
    pub taken_over: bool,
    /// Whether it was another node.
    pub from_another: bool,
    /// All of its members, if this node has just written them.
    pub written: Option<Written>,
}

/// Members that need not be read, for a while.
#[derive(Debug, Clone)]
pub struct Written {
    /// In the order of their ordinals, from the first one.
    pub members: Arc<Vec<MemberRow>>,
    /// A moment at which nobody can have published them.
    pub known_since: Instant,
}

/// A member that is to be published for the first time.
#[derive(Debug, Clone)]
pub struct MemberRow {
    /// The step.
    pub id: StepId,
    /// Its name.
    pub name: String,
    /// The current attempt.
    pub attempt: u32,
    /// The dispatch that is to be published.
    pub dispatch_seq: u32,
    /// The member's range as JSON text.
    pub cursor: Option<String>,
    /// Whether a worker must claim it before it runs it.
    pub claim_required: bool,
}

/// Members `[from, upto)` of one batch that are on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentSpan {
    /// The batch.
    pub batch: BatchId,
    /// The first of them.
    pub from: u32,
    /// Behind the last of them.
    pub upto: u32,
    /// How many of them one message brings at most; 1 at least.
    pub bundled: u32,
}

impl Store {
    /// Reads ready steps that have not been published and have no outcome.
    pub async fn load_ready(&self, ids: &[StepId]) -> Result<Vec<ReadyStep>, StoreError> {
        let known_since = Instant::now();
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let rows =
            sqlx::query_file!("queries/dispatch/load_ready.sql", &ids).fetch_all(&self.hot).await?;
        let mut steps = Vec::with_capacity(rows.len());
        for row in rows {
            steps.push(ReadyStep {
                id: StepId::from_uuid(row.id),
                task_id: TaskId::from_uuid(row.task_id),
                namespace: namespace(&row.namespace)?,
                queue: queue(&row.queue)?,
                priority: row.priority as i8,
                name: row.name,
                template_step: row.template_step,
                attempt: row.attempt as u32,
                dispatch_seq: row.dispatch_seq as u32,
                tries: row.tries as u32,
                claim_required: row.claim_required,
                cursor: row.cursor,
                known_since,
            });
        }
        Ok(steps)
    }

    /// Ready steps that have waited for their publication for this long, oldest first.
    pub async fn find_unsent(
        &self,
        older_than_ms: u64,
        limit: u32,
    ) -> Result<Vec<StepId>, StoreError> {
        let mut unsent = Vec::new();
        loop {
            let rows = sqlx::query_file!(
                "queries/dispatch/find_unsent.sql",
                older_than_ms as f64 / 1000.0,
                i64::from(limit),
            )
            .fetch_all(&self.hot)
            .await?;
            let found = rows.len();
            unsent
                .extend(rows.iter().filter(|row| !row.ended).map(|row| StepId::from_uuid(row.id)));
            // Those that had ended are recorded now; if they were all there was room for, there may
            // be more behind them.
            if found < limit as usize || !unsent.is_empty() {
                return Ok(unsent);
            }
        }
    }

    /// Records that these dispatches are on the bus. Forgotten, they are published once more, to be
    /// claimed.
    pub async fn mark_sent(&self, sent: &[(StepId, u32)]) -> Result<(), StoreError> {
        let (ids, seqs): (Vec<Uuid>, Vec<i32>) =
            sent.iter().map(|(id, seq)| (id.as_uuid(), *seq as i32)).unzip();
        pass(CrashPoint::SentBegins);
        sqlx::query_file!("queries/dispatch/mark_sent.sql", &ids, &seqs)
            .execute(&self.lazy)
            .await?;
        pass(CrashPoint::SentStored);
        Ok(())
    }

    /// Takes over the publishing of sealed batches that have unpublished members: those named, or
    /// any whose publisher has gone silent, or is this node and has not moved for half a second.
    pub async fn claim_batches(
        &self,
        named: Option<&[BatchId]>,
        node: NodeId,
        lease_ms: u64,
        limit: u32,
    ) -> Result<Vec<OpenBatch>, StoreError> {
        #[cfg(feature = "mutants")]
        if let Some(sql) = crate::mutants::CLAIM_BATCHES.mutated() {
            return crate::mutants::claim_batches(self, named, node, lease_ms, limit, sql).await;
        }
        let named: Option<Vec<Uuid>> = named.map(|ids| ids.iter().map(|id| id.as_uuid()).collect());
        let rows = sqlx::query_file!(
            "queries/dispatch/claim_batches.sql",
            named.as_deref(),
            node.as_uuid(),
            lease_ms as f64 / 1000.0,
            i64::from(limit),
        )
        .fetch_all(&self.hot)
        .await?;
        let mut batches = Vec::with_capacity(rows.len());
        for row in rows {
            batches.push(OpenBatch {
                id: BatchId::from_uuid(row.id),
                task_id: TaskId::from_uuid(row.task_id),
                namespace: namespace(&row.namespace)?,
                queue: queue(&row.queue)?,
                priority: row.priority as i8,
                worker_template: row.worker_template,
                expected: row.expected as u32,
                published_upto: row.published_upto as u32,
                ended: row.ended as u32,
                parallelism: row.parallelism.map(|n| n as u32),
                taken_over: row.taken_over,
                from_another: row.from_another,
                written: None,
            });
        }
        Ok(batches)
    }

    /// Gives up the publishing of all batches of a node that ends.
    pub async fn leave_batches(&self, node: NodeId) -> Result<(), StoreError> {
        sqlx::query_file!("queries/dispatch/leave_batches.sql", node.as_uuid())
            .execute(&self.hot)
            .await?;
        Ok(())
    }

    /// Which of these spans of members `[from, upto)` are next in batches that this node publishes.
    pub async fn own_spans(
        &self,
        spans: &[(BatchId, u32, u32)],
        node: NodeId,
    ) -> Result<Vec<BatchId>, StoreError> {
        let ids: Vec<Uuid> = spans.iter().map(|s| s.0.as_uuid()).collect();
        let from: Vec<i32> = spans.iter().map(|s| s.1 as i32).collect();
        #[cfg(feature = "mutants")]
        if let Some(sql) = crate::mutants::OWN_SPANS.mutated() {
            return crate::mutants::own_spans(self, &ids, &from, node, sql).await;
        }
        let own = sqlx::query_file_scalar!(
            "queries/dispatch/own_spans.sql",
            &ids,
            &from,
            node.as_uuid(),
        )
        .fetch_all(&self.hot)
        .await?;
        Ok(own.into_iter().map(BatchId::from_uuid).collect())
    }

    /// Reads spans of members `[from, upto)` of several batches, in order.
    pub async fn load_members(
        &self,
        spans: &[(BatchId, u32, u32)],
    ) -> Result<Vec<MemberRow>, StoreError> {
        let low: Vec<Uuid> = spans.iter().map(|(b, from, _)| b.member(*from).as_uuid()).collect();
        let high: Vec<Uuid> =
            spans.iter().map(|(b, _, upto)| b.member(upto - 1).as_uuid()).collect();
        let rows = sqlx::query_file!("queries/dispatch/load_members.sql", &low, &high)
            .fetch_all(&self.hot)
            .await?;
        let members = rows.into_iter().map(|row| MemberRow {
            id: StepId::from_uuid(row.id),
            name: row.name,
            attempt: row.attempt as u32,
            dispatch_seq: row.dispatch_seq as u32,
            cursor: row.cursor,
            claim_required: row.claim_required,
        });
        Ok(members.collect())
    }

    /// Records that members are on the bus, where the batch still stands where they begin and this node
    /// still publishes it. Returns the batches that were advanced.
    pub async fn advance_published(
        &self,
        spans: &[SentSpan],
        node: NodeId,
        lease_ms: u64,
    ) -> Result<Vec<BatchId>, StoreError> {
        let ids: Vec<Uuid> = spans.iter().map(|s| s.batch.as_uuid()).collect();
        let from: Vec<i32> = spans.iter().map(|s| s.from as i32).collect();
        let upto: Vec<i32> = spans.iter().map(|s| s.upto as i32).collect();
        let bundled: Vec<i32> = spans.iter().map(|s| s.bundled as i32).collect();
        let advanced = sqlx::query_file_scalar!(
            "queries/dispatch/advance_published.sql",
            &ids,
            &from,
            &upto,
            node.as_uuid(),
            lease_ms as f64 / 1000.0,
            &bundled,
        )
        .fetch_all(&self.hot)
        .await?;
        Ok(advanced.into_iter().map(BatchId::from_uuid).collect())
    }

    /// Moves steps whose retry is due to `enqueued`; returns them.
    pub async fn wake_retries(&self, limit: u32) -> Result<Vec<StepId>, StoreError> {
        let ids = sqlx::query_file_scalar!("queries/dispatch/wake_retries.sql", i64::from(limit))
            .fetch_all(&self.hot)
            .await?;
        Ok(ids.into_iter().map(StepId::from_uuid).collect())
    }

    /// Milliseconds until the next retry is due; `None` if there is none.
    pub async fn next_retry_ms(&self) -> Result<Option<u64>, StoreError> {
        let wait = sqlx::query_scalar!(
            r#"select (extract(epoch from min(run_after) - clock_timestamp()) * 1000)::bigint
               from tasker.steps where state = 'waiting_for_retry'"#
        )
        .fetch_one(&self.hot)
        .await?;
        Ok(wait.map(|ms| u64::try_from(ms).unwrap_or(0)))
    }
}

pub(crate) fn namespace(text: &str) -> Result<Namespace, StoreError> {
    Namespace::new(text).map_err(|e| StoreError::stored("namespace", e))
}

pub(crate) fn queue(text: &str) -> Result<Queue, StoreError> {
    Queue::new(text).map_err(|e| StoreError::stored("queue", e))
}
