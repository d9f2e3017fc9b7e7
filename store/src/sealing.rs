//! The statements that write batches and seal them.

use std::collections::HashMap;

use tasker_messages::{BatchId, NodeId, StepId};
use uuid::Uuid;

use crate::counters::TaskDeltas;
use crate::expansion::Sealed;
use crate::member_rows::MemberRows;
use crate::pool::Tx;
use crate::release::release_children;
use crate::{NewBatch, StoreError};

/// An analyzer whose batch was sealed by this transaction.
pub(crate) struct Settled {
    step: Uuid,
    batch: BatchId,
    /// How many steps wait for it, its aggregator not among them.
    children: i32,
}

/// Inserts batches that are sealed, with their members, and settles their analyzers.
pub(crate) async fn insert_sealed(
    tx: &mut Tx,
    batches: &[&NewBatch],
    publisher: Option<(NodeId, u64)>,
) -> Result<Vec<Settled>, StoreError> {
    fn column<T>(batches: &[&NewBatch], get: impl Fn(&NewBatch) -> T) -> Vec<T> {
        batches.iter().map(|b| get(b)).collect()
    }
    if batches.is_empty() {
        return Ok(Vec::new());
    }
    let mut members = MemberRows::default();
    for batch in batches {
        for (ordinal, member) in (0..).zip(&batch.members) {
            members.push(&batch.namespace, batch.task_id, batch.id, ordinal, member);
        }
    }
    let written = sqlx::query_file!(
        "queries/batches/seal_new.sql",
        &column(batches, |b| b.id.as_uuid()),
        &column(batches, |b| b.task_id.as_uuid()),
        &column(batches, |b| b.namespace.to_string()),
        &column(batches, |b| b.batchable_step.as_uuid()),
        &column(batches, |b| b.worker_template.clone()),
        &column(batches, |b| b.queue.clone()),
        &column(batches, |b| i16::from(b.priority)),
        &column(batches, |b| b.is_no_op),
        &column(batches, |b| b.expected as i32),
        &column(batches, |b| b.max_failed as i32),
        &column(batches, |b| b.isolates),
        &column(batches, parallelism) as &[Option<i32>],
        publisher.map(|(node, _)| node.as_uuid()),
        publisher.map(|(_, lease_ms)| lease_ms as f64 / 1000.0),
        &members.ids,
        &members.tasks,
        &members.namespaces as &[&str],
        &members.batches,
        &members.names as &[&str],
        &members.cursors as &[&str],
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut sealed = HashMap::new();
    let mut settled = Vec::new();
    for row in written {
        match (row.batch, row.children) {
            (Some(batch), _) => _ = sealed.insert(row.step, BatchId::from_uuid(batch)),
            (None, children) => settled.push((row.step, children.unwrap_or(0))),
        }
    }
    let settled = settled.into_iter().filter_map(|(step, children)| {
        Some(Settled { step, batch: sealed.remove(&step)?, children })
    });
    Ok(settled.collect())
}

fn parallelism(batch: &NewBatch) -> Option<i32> {
    batch.parallelism.and_then(|n| i32::try_from(n).ok())
}

/// Inserts a batch that gets its members later, unless there is one.
pub(crate) async fn insert_expanding(tx: &mut Tx, batch: &NewBatch) -> Result<(), StoreError> {
    sqlx::query_file!(
        "queries/batches/begin_expansion.sql",
        batch.id.as_uuid(),
        batch.task_id.as_uuid(),
        batch.namespace.as_str(),
        batch.batchable_step.as_uuid(),
        batch.worker_template,
        batch.queue,
        i16::from(batch.priority),
        batch.is_no_op,
        batch.expected as i32,
        batch.max_failed as i32,
        batch.isolates,
        parallelism(batch),
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Seals a batch that has all its members, and settles its analyzer.
pub(crate) async fn settle_expanded(
    tx: &mut Tx,
    step: StepId,
    batch: BatchId,
) -> Result<Option<Settled>, StoreError> {
    let children = sqlx::query_scalar!(
        "with sealed as (
             update tasker.batches
             set state = 'sealed', sealed_at = clock_timestamp(), touched_at = now()
             where id = $1 and state = 'expanding' and expanded_upto = expected
             returning id
         )
         update tasker.steps set unsettled = false
         where id = $2 and unsettled and (select count(*) from sealed) = 1
         returning children",
        batch.as_uuid(),
        step.as_uuid(),
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(children.map(|children| Settled { step: step.as_uuid(), batch, children }))
}

/// The analyzers of sealed batches have given their place in the count of active steps to their batch;
/// now they release their own children.
pub(crate) async fn release_sealed(
    tx: &mut Tx,
    settled: Vec<Settled>,
) -> Result<Sealed, StoreError> {
    let mut sealed = Sealed::default();
    let mut deltas = TaskDeltas::default();
    // Locked as they are: nobody gives them more children.
    let parents = settled.iter().filter(|settled| settled.children > 0);
    let parents: Vec<Uuid> = parents.map(|settled| settled.step).collect();
    sealed.batches = settled.into_iter().map(|settled| settled.batch).collect();
    sealed.ready = release_children(tx, &parents, &mut deltas).await?;
    sealed.finished_tasks = deltas.apply(tx).await?;
    Ok(sealed)
}
