//! Removes finished tasks that nobody wants to keep. Any number of nodes may do it at the same time; what
//! one of them leaves undone, the next sweep of any does.

use std::time::Duration;

use tasker_store::{Expiry, StoreError};

use super::node::Node;

/// Tasks that are looked at in one go.
const MAX_LOOKED_AT: u32 = 1_000;
/// Chunks that are deleted in one sweep.
const MAX_CHUNKS: u32 = 1_000;
/// However many newer ones there are, a task stays for so long: whoever waits for its end reads it then.
const GRACE: Duration = Duration::from_secs(60);

/// Takes tasks out of sight that are too old or too many, and deletes what is out of sight.
pub(super) async fn sweep(node: &Node) {
    if let Err(error) = remove(node).await {
        tracing::warn!(%error, "finished tasks could not be removed; the next sweep tries again");
    }
}

async fn remove(node: &Node) -> Result<(), StoreError> {
    let settings = &node.settings.retention;
    if settings.finished_hours > 0 {
        let age = Duration::from_secs(u64::from(settings.finished_hours) * 3_600);
        expire(node, Expiry::by_age(age)).await?;
    }
    if settings.finished_tasks > 0
        && let Some(upto) = node.store.find_surplus(settings.finished_tasks).await?
    {
        expire(node, Expiry { upto, finished_for: GRACE }).await?;
    }
    purge(node).await
}

async fn expire(node: &Node, which: Expiry) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let expired = node.store.expire_tasks(which, after, MAX_LOOKED_AT).await?;
        metrics::counter!("tasker_retention_tasks_total").increment(expired.tasks);
        if expired.next.is_none() {
            return Ok(());
        }
        after = expired.next;
        tokio::task::yield_now().await;
    }
}

/// Also where nothing is to be removed any more: settings may have changed since something was.
async fn purge(node: &Node) -> Result<(), StoreError> {
    for _ in 0..MAX_CHUNKS {
        let purged = node.store.purge_expired(node.settings.retention.chunk_rows).await?;
        metrics::counter!("tasker_retention_rows_total").increment(purged.rows);
        if !purged.more {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}
