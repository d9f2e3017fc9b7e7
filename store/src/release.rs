//! Release of children whose parents have all succeeded.

use std::time::Instant;

use tasker_messages::{StepId, TaskId};
use uuid::Uuid;

use crate::counters::TaskDeltas;
use crate::dispatch::{namespace, queue};
use crate::pool::Tx;
use crate::{ReadyStep, StoreError};

/// Takes the parents off their children's counts. Children without further parents become ready;
/// they are returned and counted as active.
///
/// Edges are read here and not where the parents' rows are locked: a converging transaction may
/// have added some while the lock was waited for.
pub(crate) async fn release_children(
    tx: &mut Tx,
    parents: &[Uuid],
    deltas: &mut TaskDeltas,
) -> Result<Vec<ReadyStep>, StoreError> {
    if parents.is_empty() {
        return Ok(Vec::new());
    }
    let known_since = Instant::now();
    let rows = sqlx::query_file!("queries/outcomes/release_children.sql", parents)
        .fetch_all(&mut **tx)
        .await?;
    let mut ready = Vec::new();
    for row in rows.into_iter().filter(|row| row.ready) {
        deltas.released(row.task_id);
        ready.push(ReadyStep {
            id: StepId::from_uuid(row.id),
            task_id: TaskId::from_uuid(row.task_id),
            namespace: namespace(&row.namespace)?,
            queue: queue(row.queue.as_deref().unwrap_or_default())?,
            priority: row.priority as i8,
            template_step: row.name.clone(),
            name: row.name,
            attempt: row.attempt as u32,
            dispatch_seq: row.dispatch_seq as u32,
            tries: row.tries as u32,
            claim_required: row.claim_required,
            cursor: None,
            known_since,
        });
    }
    Ok(ready)
}
