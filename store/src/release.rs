//! Release of children whose parents have all succeeded.

use tasker_messages::StepId;
use uuid::Uuid;

use crate::StoreError;
use crate::counters::TaskDeltas;
use crate::pool::Tx;

/// Takes the parents off their children's counts. Children without further parents become ready;
/// they are returned and counted as active.
///
/// Edges are read here and not where the parents' rows are locked: a converging transaction may
/// have added some while the lock was waited for.
pub(crate) async fn release_children(
    tx: &mut Tx,
    parents: &[Uuid],
    deltas: &mut TaskDeltas,
) -> Result<Vec<StepId>, StoreError> {
    if parents.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_file!("queries/outcomes/release_children.sql", parents)
        .fetch_all(&mut **tx)
        .await?;
    let mut ready = Vec::new();
    for row in rows.into_iter().filter(|row| row.ready) {
        deltas.released(row.task_id);
        ready.push(StepId::from_uuid(row.id));
    }
    Ok(ready)
}
