//! Statements with a guard taken out, for `make mutants`. Each is made from the statement of the product
//! when it is used, so that there is no second one to keep in step; one that no longer holds the guard as
//! it is written here does not compile.

use sqlx::{AssertSqlSafe, PgConnection};
use tasker_guards::{Guard, guard_is_off};
use tasker_messages::{BatchId, Namespace, NodeId, Queue, StepId, TaskId};
use uuid::Uuid;

use crate::apply::{Row, column, result, task_ends};
use crate::dispatch::{namespace as stored_namespace, queue as stored_queue};
use crate::{FinishedAttempt, Lost, OpenBatch, Store, StoreError};

/// A statement, and what of it is written otherwise where a guard is off.
pub(crate) struct Statement {
    sql: &'static str,
    guards: &'static [Replaced],
}

/// Where this guard is off, the first text becomes the second.
type Replaced = (Guard, &'static str, &'static str);

const fn statement(sql: &'static str, guards: &'static [Replaced]) -> Statement {
    let mut n = 0;
    while n < guards.len() {
        assert!(
            contains(sql.as_bytes(), guards[n].1.as_bytes()),
            "a guard is not in its statement"
        );
        n += 1;
    }
    Statement { sql, guards }
}

const fn contains(text: &[u8], part: &[u8]) -> bool {
    let mut at = 0;
    while at + part.len() <= text.len() {
        let mut same = 0;
        while same < part.len() && text[at + same] == part[same] {
            same += 1;
        }
        if same == part.len() {
            return true;
        }
        at += 1;
    }
    false
}

/// Of both statements that store outcomes.
const FIRST_OUTCOME_STAYS: Replaced = (
    Guard::TerminalTest,
    "on conflict (step_id) do nothing",
    "on conflict (step_id) do update set state = excluded.state, attempt = excluded.attempt,
         result = excluded.result, error = excluded.error, worker = excluded.worker",
);

pub(crate) const APPLY: Statement = statement(
    include_str!("../queries/outcomes/apply.sql"),
    &[
        (Guard::AttemptFence, "attempt = reported_attempt", "true"),
        FIRST_OUTCOME_STAYS,
        (
            Guard::CountByChange,
            "from applied\n    where batch_id is not null",
            "from locked\n    where batch_id is not null",
        ),
        (
            Guard::CheckAfterCommit,
            "null, null, ended, 0, remaining, stopped,",
            "null, null, ended, 0,
             (select b.remaining from tasker.batches b where b.id = counted_batches.id) - ended, stopped,",
        ),
        (
            Guard::EdgesSeen,
            "s.batch_id is not null or s.children = s.edges as edges_seen",
            "true as edges_seen",
        ),
    ],
);

pub(crate) const APPLY_ONE: Statement = statement(
    include_str!("../queries/outcomes/apply_one.sql"),
    &[
        (Guard::AttemptFence, "attempt = $3", "$3::int is not null"),
        FIRST_OUTCOME_STAYS,
        (
            Guard::EdgesSeen,
            "s.children = (select count(*) from tasker.step_edges e where e.parent_id = s.id)",
            "true",
        ),
    ],
);

pub(crate) const FIND_LOST: Statement = statement(
    include_str!("../queries/reconcile/find_lost.sql"),
    &[(Guard::LeaseOfLost, "and (s.lease_until is null or s.lease_until < now())", "")],
);

pub(crate) const CLAIM_BATCHES: Statement = statement(
    include_str!("../queries/dispatch/claim_batches.sql"),
    &[(Guard::SealTest, "state = 'sealed'", "state in ('sealed', 'expanding')")],
);

pub(crate) const OWN_SPANS: Statement = statement(
    include_str!("../queries/dispatch/own_spans.sql"),
    &[(
        Guard::OwnSpans,
        "b.publisher = $3 and b.published_upto = d.\"from\"",
        "$3::uuid is not null and d.\"from\" is not null",
    )],
);

impl Statement {
    /// The statement without the guard that is off; `None` if that is none of its own. Names of columns
    /// lose the marks that the macros read.
    pub(crate) fn mutated(&self) -> Option<String> {
        let (_, guarded, open) = self.guards.iter().find(|(guard, ..)| guard_is_off(*guard))?;
        let sql = self.sql.replace(guarded, open);
        Some(sql.replace("!\"", "\"").replace("?\"", "\""))
    }
}

pub(crate) async fn apply(
    connection: &mut PgConnection,
    namespace: &Namespace,
    set: &[&FinishedAttempt],
    lease_ms: u64,
    sql: String,
    errors: &[Option<String>],
) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query_as(AssertSqlSafe(sql))
        .bind(namespace.as_str())
        .bind(column(set, |a| a.step_id.as_uuid()))
        .bind(column(set, |a| a.attempt as i32))
        .bind(column(set, |a| a.kind.as_str().to_owned()))
        .bind(column(set, result))
        .bind(errors)
        .bind(column(set, |a| a.worker.as_uuid()))
        .bind(column(set, |a| i32::try_from(a.execution_ms).unwrap_or(i32::MAX)))
        .bind(column(set, |a| a.takes_next))
        .bind(lease_ms as f64 / 1000.0)
        .bind(task_ends())
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

pub(crate) async fn apply_one(
    connection: &mut PgConnection,
    namespace: &Namespace,
    attempt: &FinishedAttempt,
    lease_ms: u64,
    sql: String,
) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query_as(AssertSqlSafe(sql))
        .bind(namespace.as_str())
        .bind(attempt.step_id.as_uuid())
        .bind(attempt.attempt as i32)
        .bind(attempt.kind.as_str())
        .bind(result(attempt))
        .bind(attempt.worker.as_uuid())
        .bind(i32::try_from(attempt.execution_ms).unwrap_or(i32::MAX))
        .bind(attempt.takes_next)
        .bind(lease_ms as f64 / 1000.0)
        .bind(task_ends())
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

pub(crate) async fn find_lost(
    store: &Store,
    (ns, queue): (&Namespace, &Queue),
    batches: Option<Vec<Uuid>>,
    older_than_ms: u64,
    limit: u32,
    sql: String,
) -> Result<Lost, StoreError> {
    let ids: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(ns.as_str())
        .bind(queue.as_str())
        .bind(older_than_ms as f64 / 1000.0)
        .bind(i64::from(limit))
        .bind(batches)
        .fetch_all(&store.hot)
        .await?;
    Ok(Lost { steps: ids.into_iter().map(StepId::from_uuid).collect() })
}

/// A row of `claim_batches.sql`.
#[derive(sqlx::FromRow)]
struct BatchRow {
    id: Uuid,
    task_id: Uuid,
    namespace: String,
    queue: String,
    priority: i16,
    worker_template: String,
    expected: i32,
    published_upto: i32,
    ended: i32,
    parallelism: Option<i32>,
    taken_over: bool,
    from_another: bool,
}

pub(crate) async fn claim_batches(
    store: &Store,
    named: Option<&[BatchId]>,
    node: NodeId,
    lease_ms: u64,
    limit: u32,
    sql: String,
) -> Result<Vec<OpenBatch>, StoreError> {
    let named: Option<Vec<Uuid>> = named.map(|ids| ids.iter().map(|id| id.as_uuid()).collect());
    let rows: Vec<BatchRow> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(named)
        .bind(node.as_uuid())
        .bind(lease_ms as f64 / 1000.0)
        .bind(i64::from(limit))
        .fetch_all(&store.hot)
        .await?;
    let batch = |row: BatchRow| {
        Ok(OpenBatch {
            id: BatchId::from_uuid(row.id),
            task_id: TaskId::from_uuid(row.task_id),
            namespace: stored_namespace(&row.namespace)?,
            queue: stored_queue(&row.queue)?,
            priority: row.priority as i8,
            worker_template: row.worker_template,
            expected: row.expected as u32,
            published_upto: row.published_upto as u32,
            ended: row.ended as u32,
            parallelism: row.parallelism.map(|n| n as u32),
            taken_over: row.taken_over,
            from_another: row.from_another,
            written: None,
        })
    };
    rows.into_iter().map(batch).collect()
}

pub(crate) async fn own_spans(
    store: &Store,
    ids: &[Uuid],
    from: &[i32],
    node: NodeId,
    sql: String,
) -> Result<Vec<BatchId>, StoreError> {
    let own: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(ids)
        .bind(from)
        .bind(node.as_uuid())
        .fetch_all(&store.hot)
        .await?;
    Ok(own.into_iter().map(BatchId::from_uuid).collect())
}
