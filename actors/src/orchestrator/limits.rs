//! The limits of namespaces and their queues, as the rows said a moment ago. Shared by whoever keeps
//! to them; read by the dispatch actor's sweep, and by a node that has changed them. A namespace that
//! has none costs nothing.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use tasker_bus::BusError;
use tasker_messages::{Namespace, Queue};
use tasker_store::{NamespaceLimits, StoreError};
use tokio::sync::Mutex;

use super::dispatch::{LaneKey, adapt_queue};
use super::node::Node;

/// Limits by namespace.
#[derive(Debug, Default)]
pub struct Limits {
    known: RwLock<HashMap<Namespace, NamespaceLimits>>,
    watched: Mutex<Watched>,
}

/// What was found when limits were read last.
#[derive(Debug, Default)]
struct Watched {
    /// Queues that have a limit, or whose durable may still have one.
    queues: HashMap<LaneKey, Option<u32>>,
    /// Namespaces whose queues share a limit, or may still.
    namespaces: HashMap<Namespace, Sharing>,
}

/// What is known of the limit of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// It has this one.
    Limit(u32),
    /// It has none any more. So many more looks see to it that its queues are not held back: the node
    /// that shared the limit may not have known when it changed them last.
    Gone(u32),
}

/// Looks at a namespace after its limit was removed.
const LOOKS_AFTER: u32 = 3;

impl Limits {
    fn known(&self) -> RwLockReadGuard<'_, HashMap<Namespace, NamespaceLimits>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn replace(&self, limits: HashMap<Namespace, NamespaceLimits>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// All limits of a namespace.
    pub(crate) fn of(&self, namespace: &Namespace) -> NamespaceLimits {
        self.known().get(namespace).cloned().unwrap_or_default()
    }

    /// How many steps of a queue workers may hold at a time, whichever limit says so.
    pub(crate) fn max_running(&self, namespace: &Namespace, queue: &Queue) -> Option<u32> {
        let known = self.known();
        let limits = known.get(namespace)?;
        let own = limits.queues.get(queue).copied();
        own.into_iter().chain(limits.max_running).min()
    }

    /// How many by a limit of the queue's own.
    pub(crate) fn max_running_of_queue(&self, namespace: &Namespace, queue: &Queue) -> Option<u32> {
        self.known().get(namespace)?.queues.get(queue).copied()
    }

    /// How many tasks of a namespace may be open at a time.
    pub(crate) fn max_open_tasks(&self, namespace: &Namespace) -> Option<u32> {
        self.known().get(namespace)?.max_open_tasks
    }

    /// Whether steps of a namespace may be handed from worker to worker: not where it or a queue has a
    /// limit, since the server counts what travels on the stream alone.
    pub(crate) fn hands_over(&self, namespace: &Namespace) -> bool {
        let is_free =
            |limits: &NamespaceLimits| limits.queues.is_empty() && limits.max_running.is_none();
        self.known().get(namespace).is_none_or(is_free)
    }

    /// Whether there is a namespace whose queues share a limit.
    pub(crate) fn any_namespace(&self) -> bool {
        self.known().values().any(|limits| limits.max_running.is_some())
    }

    /// Whether they are being read, so that nobody else need to.
    pub(crate) fn are_being_read(&self) -> bool {
        self.watched.try_lock().is_err()
    }

    /// The queues whose durables have their own limits: where a namespace has one, its queues have
    /// shares of it.
    fn queues(&self) -> HashMap<LaneKey, u32> {
        let of = |(namespace, limits): (&Namespace, &NamespaceLimits)| {
            let queues = limits.queues.iter().filter(|_| limits.max_running.is_none());
            let namespace = namespace.clone();
            let key =
                move |(queue, most): (&Queue, &u32)| ((namespace.clone(), queue.clone()), *most);
            queues.map(key).collect::<Vec<_>>()
        };
        self.known().iter().flat_map(of).collect()
    }

    fn namespaces(&self) -> HashMap<Namespace, u32> {
        let known = self.known();
        let limited = known.iter().filter_map(|(name, l)| Some((name.clone(), l.max_running?)));
        limited.collect()
    }
}

/// Reads the limits anew and brings the durables of limited queues up to them, whatever they were
/// told before: another node may just have written an older limit. What the bus does not take now, the
/// next call tries. Returns the queues whose limit is another one than when this node looked last.
///
/// # Errors
/// If the limits cannot be read now; then those that were known go on.
pub(crate) async fn refresh(node: &Node) -> Result<Vec<LaneKey>, StoreError> {
    // Held while the rows are read, so that nobody puts older ones in the place of newer ones.
    let mut watched = node.limits.watched.lock().await;
    node.limits.replace(node.store.load_limits().await?);
    let mut changed = refresh_queues(node, &mut watched.queues).await;
    match refresh_namespaces(node, &mut watched.namespaces).await {
        Ok(more) => changed.extend(more),
        Err(error) => {
            tracing::warn!(%error, "the bus did not say which queues share a limit; the next sweep asks again");
        }
    }
    Ok(changed)
}

async fn refresh_queues(node: &Node, watched: &mut HashMap<LaneKey, Option<u32>>) -> Vec<LaneKey> {
    let limited = node.limits.queues();
    let mut changed = Vec::new();
    for (key, most) in &limited {
        if watched.insert(key.clone(), Some(*most)) != Some(Some(*most)) {
            changed.push(key.clone());
        }
    }
    // Where the namespace has a limit now, the durable is its share's.
    watched.retain(|key, _| node.limits.of(&key.0).max_running.is_none());
    let mut free = Vec::new();
    for (key, known) in watched.iter_mut().filter(|(key, _)| !limited.contains_key(key)) {
        if known.take().is_some() {
            changed.push(key.clone());
        }
        free.push(key.clone());
    }
    let all = limited.into_iter().map(|(key, most)| (key, Some(most)));
    for (key, most) in all.chain(free.into_iter().map(|key| (key, None))) {
        match adapt_queue(node, &key, most).await {
            Ok(()) if most.is_none() => {
                watched.remove(&key);
            }
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, namespace = %key.0, queue = %key.1, "the bus did not take the limit of a queue; the next sweep tries again");
                break;
            }
        }
    }
    changed
}

/// Sees which namespaces have a limit now, and gives those that have lost theirs their durables back.
/// Shares are not its business.
async fn refresh_namespaces(
    node: &Node,
    watched: &mut HashMap<Namespace, Sharing>,
) -> Result<Vec<LaneKey>, BusError> {
    let limited = node.limits.namespaces();
    if limited.is_empty() && watched.is_empty() {
        return Ok(Vec::new());
    }
    let durables = node.bus.work_durables().await?;
    let queues = |name: &Namespace| -> Vec<LaneKey> {
        durables.iter().filter(|(other, _)| other == name).cloned().collect()
    };
    let mut changed = Vec::new();
    for (name, limit) in &limited {
        let now = Sharing::Limit(*limit);
        if watched.insert(name.clone(), now) != Some(now) {
            changed.extend(queues(name));
        }
    }
    let mut over = Vec::new();
    for (name, sharing) in watched.iter_mut().filter(|(name, _)| !limited.contains_key(*name)) {
        let looks = match *sharing {
            Sharing::Gone(looks) => looks,
            Sharing::Limit(_) => {
                changed.extend(queues(name));
                LOOKS_AFTER
            }
        };
        for key in queues(name) {
            let own = node.limits.max_running_of_queue(name, &key.1);
            adapt_queue(node, &key, own).await?;
        }
        *sharing = Sharing::Gone(looks.saturating_sub(1));
        if looks <= 1 {
            over.push(name.clone());
        }
    }
    over.iter().for_each(|name| {
        watched.remove(name);
    });
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_limited() {
        let namespace = |name: &str| Namespace::new(name).expect("a name");
        let (gpu, default) = (Queue::new("gpu").expect("a name"), Queue::default());
        let (a, b) = (namespace("a"), namespace("b"));
        let limits = Limits::default();
        assert!(limits.hands_over(&a) && limits.max_open_tasks(&a).is_none());
        let of_a =
            NamespaceLimits { queues: [(gpu.clone(), 3)].into(), ..NamespaceLimits::default() };
        let of_b = NamespaceLimits { max_open_tasks: Some(7), ..NamespaceLimits::default() };
        assert!(!limits.any_namespace());
        limits.replace([(a.clone(), of_a), (b.clone(), of_b)].into());
        assert_eq!(limits.max_running(&a, &gpu), Some(3));
        assert_eq!(limits.max_running(&a, &default), None);
        assert_eq!(limits.max_running(&b, &gpu), None);
        assert_eq!((limits.max_open_tasks(&a), limits.max_open_tasks(&b)), (None, Some(7)));
        // Steps of the other queues of a namespace would pass through limited ones.
        assert!(!limits.hands_over(&a) && limits.hands_over(&b));
        assert_eq!(limits.queues(), [((a.clone(), gpu.clone()), 3)].into());
        // A limit of the namespace holds for each of its queues, which share it.
        let of_a = NamespaceLimits { max_running: Some(2), ..limits.of(&a) };
        limits.replace([(a.clone(), of_a)].into());
        assert_eq!(
            (limits.max_running(&a, &gpu), limits.max_running(&a, &default)),
            (Some(2), Some(2))
        );
        assert_eq!(limits.max_running_of_queue(&a, &gpu), Some(3));
        assert!(limits.any_namespace() && !limits.hands_over(&a));
        assert_eq!(
            (limits.queues(), limits.namespaces()),
            (HashMap::new(), [(a.clone(), 2)].into())
        );
        limits.replace(HashMap::new());
        assert_eq!(limits.max_running(&a, &gpu), None);
    }
}
