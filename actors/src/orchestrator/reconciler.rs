//! Compares rows with the bus and sends again what was lost. Runs on every node; all of its work is
//! compare-and-set. What is lost when it dies: one check, which comes again.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_guards::{Guard, guard_is_off};
use tasker_messages::{Namespace, Queue, StepId};
use tasker_store::{Dispatched, EpochState, StoreError};

use super::Links;
use super::dispatch::{DispatchMessage, ensure_queue};
use super::node::{Node, run_detached};

/// Compares rows with the bus.
pub(crate) struct ReconcilerActor;

/// What the actor is told.
pub(crate) enum ReconcilerMessage {
    /// Compare now.
    Check,
    /// A comparison has ended.
    Checked(Box<Suspicions>),
}

/// What earlier checks suspected, and since when: the steps that were missing in every check since.
#[derive(Clone, Default)]
pub(crate) struct Suspicions {
    missing: HashMap<(Namespace, Queue), Suspicion>,
    /// When the stream of work items was made, as last seen.
    stream_created_ns: Option<i64>,
}

#[derive(Clone)]
struct Suspicion {
    since: Instant,
    steps: HashSet<StepId>,
}

/// What the actor keeps in mind.
pub(crate) struct ReconcilerState {
    node: Node,
    links: Links,
    suspicions: Suspicions,
    checking: bool,
}

impl Actor for ReconcilerActor {
    type Msg = ReconcilerMessage;
    type State = ReconcilerState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<ReconcilerMessage>,
        (node, links): (Node, Links),
    ) -> Result<ReconcilerState, ActorProcessingErr> {
        myself.send_interval(node.settings.reconciler.interval(), || ReconcilerMessage::Check);
        let suspicions = Suspicions::default();
        Ok(ReconcilerState { node, links, suspicions, checking: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<ReconcilerMessage>,
        message: ReconcilerMessage,
        state: &mut ReconcilerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ReconcilerMessage::Check if !state.checking => {
                state.checking = true;
                let (node, links) = (state.node.clone(), state.links.clone());
                let suspicions = std::mem::take(&mut state.suspicions);
                let work = async move {
                    let next = check(&node, &links, suspicions).await;
                    ReconcilerMessage::Checked(Box::new(next))
                };
                run_detached(&myself, work, || ReconcilerMessage::Checked(Box::default()));
            }
            ReconcilerMessage::Check => {}
            ReconcilerMessage::Checked(suspicions) => {
                state.checking = false;
                state.suspicions = *suspicions;
            }
        }
        Ok(())
    }
}

/// One comparison. What it cannot find out now, the next one does.
async fn check(node: &Node, links: &Links, suspicions: Suspicions) -> Suspicions {
    if let Err(error) = node.store.forget_silent_workers().await {
        tracing::warn!(%error, "silent workers could not be forgotten");
    }
    let before = suspicions.clone();
    let created_ns = match check_streams(node, links, suspicions.stream_created_ns).await {
        Ok(created_ns) => created_ns,
        Err(error) => {
            tracing::warn!(error, "the streams could not be checked");
            return before;
        }
    };
    match check_queues(node, suspicions.missing).await {
        Ok(missing) => Suspicions { missing, stream_created_ns: Some(created_ns) },
        Err(error) => {
            tracing::warn!(%error, "rows could not be compared with the bus");
            Suspicions { missing: before.missing, stream_created_ns: Some(created_ns) }
        }
    }
}

/// Makes sure that the streams exist. A stream that is new has lost everything outstanding: it is
/// sent again, once per stream, by whichever node comes first.
async fn check_streams(node: &Node, links: &Links, known_ns: Option<i64>) -> Result<i64, String> {
    let epoch = node.bus.ensure_streams(&node.settings.streams).await.map_err(|e| e.to_string())?;
    let created_ns = epoch.created_unix_nanos;
    if known_ns == Some(created_ns) {
        return Ok(created_ns);
    }
    if known_ns.is_some() {
        tracing::warn!("the stream of work items was made anew; what was on it is sent again");
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
    Ok(created_ns)
}

async fn redispatch_all(node: &Node, queue: &Dispatched) -> Result<u32, StoreError> {
    let limit = node.settings.reconciler.max_redispatch;
    let mut sent = 0;
    while !guard_is_off(Guard::Reconciler) {
        let lost = node.store.find_lost(&queue.namespace, &queue.queue, 0, limit).await?.steps;
        let now = node.store.redispatch(&queue.namespace, &lost).await?;
        sent += now;
        if now == 0 || (lost.len() as u32) < limit {
            break;
        }
    }
    Ok(sent)
}

/// A queue has lost messages if the rows say that more is on the bus than its consumer knows of, in
/// every check over a while. Only steps that were missing all that time are sent again.
async fn check_queues(
    node: &Node,
    before: HashMap<(Namespace, Queue), Suspicion>,
) -> Result<HashMap<(Namespace, Queue), Suspicion>, StoreError> {
    let settings = &node.settings.reconciler;
    let mut after = HashMap::new();
    for queue in node.store.count_dispatched().await? {
        let load = node.bus.consumer_load(&queue.namespace, &queue.queue).await;
        let on_bus = match load {
            Ok(Some(load)) => load.pending + load.ack_pending,
            Ok(None) => {
                // Steps wait on a queue that the bus does not have: nobody could pull them.
                let key = (queue.namespace.clone(), queue.queue.clone());
                if let Err(error) = ensure_queue(node, &key).await {
                    tracing::warn!(%error, namespace = %key.0, queue = %key.1, "a missing queue could not be made");
                }
                0
            }
            // Whoever cannot ask does not suspect.
            Err(_) => continue,
        };
        let missing = queue.outstanding.saturating_sub(on_bus);
        if guard_is_off(Guard::Reconciler) {
            continue;
        }
        metrics::gauge!("tasker_reconciler_missing_steps",
            "namespace" => queue.namespace.to_string(), "queue" => queue.queue.to_string())
        .set(missing as f64);
        if missing == 0 {
            continue;
        }
        let key = (queue.namespace.clone(), queue.queue.clone());
        let found = find_missing(node, &queue, missing).await?;
        let suspicion = match before.get(&key) {
            Some(earlier) => Suspicion {
                since: earlier.since,
                steps: earlier.steps.intersection(&found).copied().collect(),
            },
            None => Suspicion { since: Instant::now(), steps: found },
        };
        if suspicion.steps.is_empty() {
            continue;
        }
        if suspicion.since.elapsed() < settings.confirm() {
            after.insert(key, suspicion);
            continue;
        }
        let mut steps: Vec<StepId> = suspicion.steps.into_iter().collect();
        steps.sort_unstable();
        steps.truncate(missing.min(u64::from(settings.max_redispatch)) as usize);
        let sent = node.store.redispatch(&queue.namespace, &steps).await?;
        metrics::counter!("tasker_reconciler_redispatched_total").increment(u64::from(sent));
        tracing::warn!(namespace = %key.0, queue = %key.1, missing, steps = sent, "lost work items were dispatched again");
    }
    Ok(after)
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
    let lost =
        node.store.find_lost(&queue.namespace, &queue.queue, settings.interval_ms, limit as u32);
    Ok(lost.await?.steps.into_iter().collect())
}
