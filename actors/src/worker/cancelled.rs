use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tasker_messages::{Namespace, TaskId};
use tokio::sync::watch;

/// Cancelled tasks that are remembered; the oldest is forgotten first, which costs a run in vain.
const MAX_REMEMBERED: usize = 10_000;
/// Watched tasks are looked through for unwatched ones when there are more than this.
const MANY_WATCHED: usize = 1_024;

/// Which tasks were cancelled, as far as hints have told.
#[derive(Default)]
pub(crate) struct Cancelled {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tasks: HashMap<TaskId, Namespace>,
    order: VecDeque<TaskId>,
    watched: HashMap<TaskId, (Namespace, watch::Sender<bool>)>,
}

impl Cancelled {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a cancelled task, and tells its running steps.
    pub(crate) fn cancel(&self, namespace: Namespace, task: TaskId) {
        let mut inner = self.inner();
        // A hint of one namespace has nothing to say about another one's tasks.
        if let Some((_, sender)) = inner.watched.get(&task).filter(|(ns, _)| *ns == namespace) {
            sender.send_replace(true);
        }
        if inner.tasks.insert(task, namespace).is_none() {
            inner.order.push_back(task);
        }
        if inner.order.len() > MAX_REMEMBERED
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.tasks.remove(&oldest);
        }
    }

    /// Whether the task was cancelled.
    pub(crate) fn contains(&self, namespace: &Namespace, task: TaskId) -> bool {
        let inner = self.inner();
        !inner.tasks.is_empty() && inner.tasks.get(&task) == Some(namespace)
    }

    /// Turns true when the task is cancelled.
    pub(crate) fn watch(&self, namespace: &Namespace, task: TaskId) -> watch::Receiver<bool> {
        let mut inner = self.inner();
        if let Some((_, sender)) = inner.watched.get(&task).filter(|(ns, _)| ns == namespace) {
            return sender.subscribe();
        }
        if inner.watched.len() >= MANY_WATCHED {
            inner.watched.retain(|_, (_, sender)| sender.receiver_count() > 0);
        }
        let cancelled = inner.tasks.get(&task) == Some(namespace);
        let (sender, receiver) = watch::channel(cancelled);
        inner.watched.insert(task, (namespace.clone(), sender));
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(n: u128) -> TaskId {
        TaskId::from_uuid(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn hints_reach_running_and_later_steps_of_their_namespace() {
        let cancelled = Cancelled::default();
        let [a, b] = ["a", "b"].map(|name| name.parse::<Namespace>().expect("a name"));
        let watch = cancelled.watch(&a, task(1));
        cancelled.cancel(b.clone(), task(1));
        assert!(!*watch.borrow() && !cancelled.contains(&a, task(1)));
        cancelled.cancel(a.clone(), task(1));
        assert!(*watch.borrow());
        cancelled.cancel(a.clone(), task(2));
        assert!(cancelled.contains(&a, task(2)) && *cancelled.watch(&a, task(2)).borrow());
        assert!(!cancelled.contains(&a, task(3)));
    }

    #[test]
    fn memory_is_bounded() {
        let cancelled = Cancelled::default();
        let a: Namespace = "a".parse().expect("a name");
        for n in 0..MAX_REMEMBERED as u128 + 5 {
            cancelled.cancel(a.clone(), task(n));
            drop(cancelled.watch(&a, task(n)));
        }
        let inner = cancelled.inner();
        assert_eq!((inner.tasks.len(), inner.order.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
        assert!(inner.watched.len() <= MANY_WATCHED);
        assert!(!inner.tasks.contains_key(&task(0)));
    }
}
