//! The streams, and which incarnation of them there is.

use tasker_bus::StreamEpoch;
use tasker_guards::{Guard, guard_is_off};
use tasker_messages::RecoveryKind;
use tasker_store::{Dispatched, EpochState, StoreError};

use crate::orchestrator::Links;
use crate::orchestrator::dispatch::DispatchMessage;
use crate::orchestrator::node::Node;

/// Makes sure that the streams exist. A stream that is new has lost everything outstanding: it is
/// sent again, once per stream, by whichever node comes first.
pub(super) async fn check(
    node: &Node,
    links: &Links,
    known: Option<StreamEpoch>,
) -> Result<StreamEpoch, String> {
    let epoch = node.bus.ensure_streams(&node.settings.streams).await.map_err(|e| e.to_string())?;
    let created_ns = epoch.created_unix_nanos;
    match known {
        Some(known) if known.created_unix_nanos == created_ns => {
            if epoch.last_sequence < known.last_sequence {
                rolled_back(node, links, known.last_sequence - epoch.last_sequence).await;
            }
            return Ok(epoch);
        }
        Some(_) => {
            tracing::warn!("the stream of work items was made anew; what was on it is sent again");
        }
        None => {}
    }
    links.dispatch.cast(DispatchMessage::BusReset);
    let redispatched = async {
        let state = node.store.note_epoch(created_ns).await?;
        if state == EpochState::Done {
            return Ok(0);
        }
        let mut sent = 0;
        if state == EpochState::Open {
            for queue in node.store.count_dispatched().await? {
                sent += redispatch_all(node, &queue).await?;
            }
        }
        node.store.finish_epoch(created_ns).await?;
        Ok::<_, StoreError>(sent)
    };
    let sent = redispatched.await.map_err(|e| e.to_string())?;
    metrics::counter!("tasker_reconciler_redispatched_total").increment(u64::from(sent));
    if sent > 0 {
        tracing::warn!(steps = sent, "steps were dispatched again on a new stream");
    }
    Ok(epoch)
}

/// The stream has the same name and birth as before and ends earlier: the server was given an old copy of
/// its store, or a machine lost what was not on its disk. The comparison of rows with the bus finds what is
/// missing; consumers that are younger than the copy are gone.
async fn rolled_back(node: &Node, links: &Links, messages: u64) {
    tracing::warn!(messages, "the stream of work items has fallen back to an earlier state");
    links.dispatch.cast(DispatchMessage::BusReset);
    let recorded = node.store.record_recovery(node.id, RecoveryKind::RolledBackStream, None).await;
    if let Err(error) = recorded {
        tracing::warn!(%error, "it could not be recorded");
    }
}

async fn redispatch_all(node: &Node, queue: &Dispatched) -> Result<u32, StoreError> {
    let limit = node.settings.reconciler.max_redispatch;
    let (place, why) = ((&queue.namespace, &queue.queue), (node.id, RecoveryKind::NewStream));
    let mut sent = 0;
    while !guard_is_off(Guard::Reconciler) {
        let lost = node.store.find_lost(place, None, 0, limit).await?.steps;
        let now = node.store.redispatch(place, &lost, why).await?;
        sent += now;
        if now == 0 || (lost.len() as u32) < limit {
            break;
        }
    }
    Ok(sent)
}
