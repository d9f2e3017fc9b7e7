//! The limits of namespaces and their queues, as the rows said a moment ago. Shared by whoever keeps
//! to them; read by the dispatch actor's sweep, and by a node that has changed them. A namespace that
//! has none costs nothing.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use tasker_messages::{Namespace, Queue};
use tasker_store::{NamespaceLimits, StoreError};
use tokio::sync::Mutex;

use super::dispatch::{LaneKey, adapt_queue};
use super::node::Node;

/// Limits by namespace.
#[derive(Debug, Default)]
pub struct Limits {
    known: RwLock<HashMap<Namespace, NamespaceLimits>>,
    /// Queues that have a limit, or whose durable may still have one.
    watched: Mutex<HashMap<LaneKey, Option<u32>>>,
}

impl Limits {
    fn known(&self) -> RwLockReadGuard<'_, HashMap<Namespace, NamespaceLimits>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn replace(&self, limits: HashMap<Namespace, NamespaceLimits>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// How many steps of a queue workers may hold at a time.
    pub(crate) fn max_running(&self, namespace: &Namespace, queue: &Queue) -> Option<u32> {
        self.known().get(namespace)?.max_running.get(queue).copied()
    }

    /// How many tasks of a namespace may be open at a time.
    pub(crate) fn max_open_tasks(&self, namespace: &Namespace) -> Option<u32> {
        self.known().get(namespace)?.max_open_tasks
    }

    /// Whether steps of a namespace may be handed from worker to worker: not where a queue has a
    /// limit, since the server counts what travels on the stream alone.
    pub(crate) fn hands_over(&self, namespace: &Namespace) -> bool {
        self.known().get(namespace).is_none_or(|limits| limits.max_running.is_empty())
    }

    /// Whether they are being read, so that nobody else need to.
    pub(crate) fn are_being_read(&self) -> bool {
        self.watched.try_lock().is_err()
    }

    fn queues(&self) -> HashMap<LaneKey, u32> {
        let of = |(namespace, limits): (&Namespace, &NamespaceLimits)| {
            let queues = limits.max_running.iter();
            let namespace = namespace.clone();
            let key =
                move |(queue, most): (&Queue, &u32)| ((namespace.clone(), queue.clone()), *most);
            queues.map(key).collect::<Vec<_>>()
        };
        self.known().iter().flat_map(of).collect()
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
    let limited = node.limits.queues();
    let mut changed = Vec::new();
    for (key, most) in &limited {
        if watched.insert(key.clone(), Some(*most)) != Some(Some(*most)) {
            changed.push(key.clone());
        }
    }
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
        let of_a = NamespaceLimits {
            max_running: [(gpu.clone(), 3)].into(),
            ..NamespaceLimits::default()
        };
        let of_b = NamespaceLimits { max_open_tasks: Some(7), ..NamespaceLimits::default() };
        limits.replace([(a.clone(), of_a), (b.clone(), of_b)].into());
        assert_eq!(limits.max_running(&a, &gpu), Some(3));
        assert_eq!(limits.max_running(&a, &default), None);
        assert_eq!(limits.max_running(&b, &gpu), None);
        assert_eq!((limits.max_open_tasks(&a), limits.max_open_tasks(&b)), (None, Some(7)));
        // Steps of the other queues of a namespace would pass through limited ones.
        assert!(!limits.hands_over(&a) && limits.hands_over(&b));
        assert_eq!(limits.queues(), [((a.clone(), gpu.clone()), 3)].into());
        limits.replace(HashMap::new());
        assert_eq!(limits.max_running(&a, &gpu), None);
    }
}
