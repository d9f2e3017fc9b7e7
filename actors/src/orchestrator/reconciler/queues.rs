//! What should be on the bus against what is.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use tasker_guards::{Guard, guard_is_off};
use tasker_messages::{Namespace, Queue, RecoveryKind, StepId};
use tasker_store::{Dispatched, StoreError};

use super::cut::{self, Cuts};
use super::stalls::{Standing, is_stalled, make_anew};
use super::still::{self, Stills};
use crate::orchestrator::dispatch::ensure_queue;
use crate::orchestrator::node::Node;

/// A queue of a namespace.
pub(super) type Key = (Namespace, Queue);

/// What is remembered of queues from one check to the next.
#[derive(Clone, Default)]
pub(super) struct Suspected {
    missing: HashMap<Key, Suspicion>,
    standing: Standing,
    cuts: Cuts,
    stills: Stills,
}

/// The steps that were missing in every check since.
#[derive(Clone)]
pub(super) struct Suspicion {
    since: Instant,
    steps: HashSet<StepId>,
}

/// Compares the rows of each queue with what its consumer knows of; returns on how many of them something is
/// outstanding. After an error, what was suspected before still is.
pub(super) async fn check(node: &Node, suspected: &mut Suspected) -> Result<usize, StoreError> {
    let (mut missing, mut standing) = (HashMap::new(), Standing::new());
    if !node.acks_were_lost() {
        suspected.cuts.clear();
    }
    let queues = node.store.count_dispatched().await?;
    let is_there =
        |key: &Key| queues.iter().any(|queue| queue.namespace == key.0 && queue.queue == key.1);
    suspected.stills.retain(|key, _| is_there(key));
    let outstanding = queues.len();
    for queue in queues {
        let key = (queue.namespace.clone(), queue.queue.clone());
        let epoch = node.bus.connection().borrow().epoch;
        let load = node.bus.consumer_load(&queue.namespace, &queue.queue).await;
        let on_bus = match load {
            Ok(Some(load)) => {
                let stand = suspected.standing.get(&key).copied();
                if is_stalled(node, &key, &load, stand, &mut standing).await? {
                    make_anew(node, &key).await;
                    continue;
                }
                cut::check(node, &queue, (epoch, &load), &mut suspected.cuts).await?;
                still::check(node, &queue, (epoch, &load), &mut suspected.stills).await?;
                load.pending + load.ack_pending
            }
            Ok(None) => {
                make_missing(node, &key).await;
                0
            }
            // Whoever cannot ask does not suspect.
            Err(_) => continue,
        };
        let before = suspected.missing.get(&key);
        if let Some(suspicion) = compare(node, &queue, on_bus, before).await? {
            missing.insert(key, suspicion);
        }
    }
    (suspected.missing, suspected.standing) = (missing, standing);
    Ok(outstanding)
}

/// Steps wait on a queue that the bus does not have: nobody could pull them.
async fn make_missing(node: &Node, key: &Key) {
    if let Err(error) = ensure_queue(node, key).await {
        tracing::warn!(%error, namespace = %key.0, queue = %key.1, "a missing queue could not be made");
        return;
    }
    let place = Some((&key.0, &key.1));
    let recorded = node.store.record_recovery(node.id, RecoveryKind::MissingConsumer, place).await;
    if let Err(error) = recorded {
        tracing::warn!(%error, "a recovery could not be recorded");
    }
}

/// A queue has lost messages if the rows say that more of them are on the bus than its consumer knows of, in
/// every check over a while. A lost one may have brought as many steps as any. Only steps that were missing
/// all that time are sent again. Returns what is still only suspected.
async fn compare(
    node: &Node,
    queue: &Dispatched,
    on_bus: u64,
    before: Option<&Suspicion>,
) -> Result<Option<Suspicion>, StoreError> {
    let settings = &node.settings.reconciler;
    let missing = queue.messages.saturating_sub(on_bus).saturating_mul(u64::from(queue.bundled));
    metrics::gauge!("tasker_reconciler_missing_steps",
        "namespace" => queue.namespace.to_string(), "queue" => queue.queue.to_string())
    .set(missing as f64);
    if missing == 0 || guard_is_off(Guard::Reconciler) {
        return Ok(None);
    }
    let found = find_missing(node, queue, missing).await?;
    let suspicion = match before {
        Some(earlier) => Suspicion {
            since: earlier.since,
            steps: earlier.steps.intersection(&found).copied().collect(),
        },
        None => Suspicion { since: Instant::now(), steps: found },
    };
    if suspicion.steps.is_empty() {
        return Ok(None);
    }
    if suspicion.since.elapsed() < settings.confirm() {
        return Ok(Some(suspicion));
    }
    let mut steps: Vec<StepId> = suspicion.steps.into_iter().collect();
    steps.sort_unstable();
    steps.truncate(missing.min(u64::from(settings.max_redispatch)) as usize);
    send_again(node, queue, &steps).await?;
    Ok(None)
}

/// Dispatches steps again whose messages are lost.
pub(super) async fn send_again(
    node: &Node,
    queue: &Dispatched,
    steps: &[StepId],
) -> Result<(), StoreError> {
    let (place, why) = ((&queue.namespace, &queue.queue), (node.id, RecoveryKind::LostMessages));
    let sent = node.store.redispatch(place, steps, why).await?;
    metrics::counter!("tasker_reconciler_redispatched_total").increment(u64::from(sent));
    if sent > 0 {
        tracing::warn!(namespace = %queue.namespace, queue = %queue.queue, steps = sent, "lost work items were dispatched again");
    }
    Ok(())
}

async fn find_missing(
    node: &Node,
    queue: &Dispatched,
    missing: u64,
) -> Result<HashSet<StepId>, StoreError> {
    let settings = &node.settings.reconciler;
    // The oldest ones are the lost ones: more of them are looked at than are missing, since some of
    // them wait in the consumer.
    let limit =
        missing.saturating_mul(2).saturating_add(64).min(u64::from(settings.max_redispatch));
    let lost = node.store.find_lost(
        (&queue.namespace, &queue.queue),
        None,
        settings.interval_ms,
        limit as u32,
    );
    Ok(lost.await?.steps.into_iter().collect())
}
