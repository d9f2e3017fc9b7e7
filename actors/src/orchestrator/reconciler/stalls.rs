//! Consumers that do not deliver although they could.

use std::collections::HashMap;
use std::time::Instant;

use tasker_bus::ConsumerLoad;
use tasker_messages::{Namespace, Queue, RecoveryKind};
use tasker_store::StoreError;

use crate::orchestrator::dispatch::ensure_queue;
use crate::orchestrator::node::Node;

/// Queues on which something waits, and where their consumers stand.
pub(super) type Standing = HashMap<(Namespace, Queue), Stand>;

/// How far a consumer was, and since when it has not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stand {
    since: Instant,
    created_unix_nanos: i64,
    delivered: u64,
    acknowledged: u64,
}

/// Where a consumer stands that has something to deliver, may, and does not move; since when.
fn stand(load: &ConsumerLoad, before: Option<Stand>, now: Instant) -> Option<Stand> {
    let may = load.ack_pending < u64::from(load.max_ack_pending) && load.paused_for.is_none();
    if load.pending == 0 || !may {
        return None;
    }
    let stand = Stand {
        since: now,
        created_unix_nanos: load.created_unix_nanos,
        delivered: load.delivered_stream_seq,
        acknowledged: load.ack_floor_stream_seq,
    };
    Some(match before {
        Some(before) if (Stand { since: now, ..before }) == stand => before,
        _ => stand,
    })
}

/// Whether a consumer has not delivered for long, though something waits and workers have room for it.
pub(super) async fn is_stalled(
    node: &Node,
    key: &(Namespace, Queue),
    load: &ConsumerLoad,
    before: Option<Stand>,
    after: &mut Standing,
) -> Result<bool, StoreError> {
    let Some(stand) = stand(load, before, Instant::now()) else { return Ok(false) };
    after.insert(key.clone(), stand);
    if stand.since.elapsed() < node.settings.reconciler.stalled_consumer() {
        return Ok(false);
    }
    Ok(node.store.free_slots(&key.0, &key.1, node.workers_live_within()).await? > 0)
}

/// Makes a consumer anew: workers hear of it, pull again, and claim what may have been delivered before.
pub(super) async fn make_anew(node: &Node, key: &(Namespace, Queue)) {
    tracing::warn!(namespace = %key.0, queue = %key.1, "a consumer has not delivered what waits; it is made anew");
    let made = async {
        node.bus.delete_work_durable(&key.0, &key.1).await?;
        ensure_queue(node, key).await
    };
    if let Err(error) = made.await {
        tracing::warn!(%error, namespace = %key.0, queue = %key.1, "it could not be made anew");
    }
    let place = Some((&key.0, &key.1));
    let recorded = node.store.record_recovery(node.id, RecoveryKind::StalledConsumer, place).await;
    if let Err(error) = recorded {
        tracing::warn!(%error, "a recovery could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_consumer_stands_while_nothing_of_it_moves() {
        let load = ConsumerLoad {
            created_unix_nanos: 1,
            age: Duration::ZERO,
            pending: 5,
            ack_pending: 2,
            ack_floor_stream_seq: 10,
            delivered_stream_seq: 12,
            max_ack_pending: 3,
            paused_for: None,
        };
        let then = Instant::now();
        let now = then + Duration::from_secs(9);
        let first = stand(&load, None, then).expect("it stands");
        assert_eq!(stand(&load, Some(first), now).map(|s| s.since), Some(then));
        for moved in [
            ConsumerLoad { delivered_stream_seq: 13, ..load },
            ConsumerLoad { ack_floor_stream_seq: 11, ..load },
            ConsumerLoad { created_unix_nanos: 2, ..load },
        ] {
            assert_eq!(stand(&moved, Some(first), now).map(|s| s.since), Some(now), "{moved:?}");
        }
        for need_not in [
            ConsumerLoad { pending: 0, ..load },
            ConsumerLoad { ack_pending: 3, ..load },
            ConsumerLoad { paused_for: Some(Duration::from_secs(1)), ..load },
        ] {
            assert_eq!(stand(&need_not, Some(first), now), None, "{need_not:?}");
        }
    }
}
