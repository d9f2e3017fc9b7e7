use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tasker_messages::{BatchId, Namespace, TaskId, WorkItem};
use tokio::sync::watch;

/// Cancelled tasks and stopped batches that are remembered; the oldest is forgotten first, which costs
/// a run in vain.
const MAX_REMEMBERED: usize = 10_000;
/// Watched steps are looked through for unwatched ones when there are more than this.
const MANY_WATCHED: usize = 1_024;

/// What was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stopped {
    /// A task.
    Task(TaskId),
    /// The members of a batch, by their family.
    Members(u128),
}

impl Stopped {
    pub(crate) fn batch(batch: BatchId) -> Self {
        Stopped::Members(batch.family())
    }
}

/// Which tasks were cancelled and which batches were stopped, as far as hints have told.
#[derive(Default)]
pub(crate) struct Cancelled {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    stopped: HashMap<Stopped, Namespace>,
    order: VecDeque<Stopped>,
    watched: HashMap<Watched, watch::Sender<bool>>,
}

/// Running steps of one task and, of members, one batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Watched {
    namespace: Namespace,
    task: TaskId,
    family: u128,
}

impl Watched {
    fn is_of(&self, namespace: &Namespace, stopped: Stopped) -> bool {
        // A hint of one namespace has nothing to say about another one's tasks.
        self.namespace == *namespace
            && match stopped {
                Stopped::Task(task) => self.task == task,
                Stopped::Members(family) => self.family == family,
            }
    }
}

impl Inner {
    fn is_stopped(&self, namespace: &Namespace, stopped: Stopped) -> bool {
        !self.stopped.is_empty() && self.stopped.get(&stopped) == Some(namespace)
    }
}

impl Cancelled {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what was stopped, and tells its running steps.
    pub(crate) fn stop(&self, namespace: Namespace, stopped: Stopped) {
        let mut inner = self.inner();
        for (_, sender) in inner.watched.iter().filter(|(w, _)| w.is_of(&namespace, stopped)) {
            sender.send_replace(true);
        }
        if inner.stopped.insert(stopped, namespace).is_none() {
            inner.order.push_back(stopped);
        }
        if inner.order.len() > MAX_REMEMBERED
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.stopped.remove(&oldest);
        }
    }

    /// Whether the step's task was cancelled, so that it need not start.
    pub(crate) fn has_task(&self, namespace: &Namespace, item: &WorkItem) -> bool {
        self.inner().is_stopped(namespace, Stopped::Task(item.task_id))
    }

    /// Whether the step's batch was stopped. It may have been retried since, so that whoever has a
    /// member of it asks before it is run.
    pub(crate) fn has_batch(&self, namespace: &Namespace, item: &WorkItem) -> bool {
        self.inner().is_stopped(namespace, Stopped::Members(item.step_id.family()))
    }

    /// A member of the step's batch is to be run: the batch goes on.
    pub(crate) fn resume(&self, namespace: &Namespace, item: &WorkItem) {
        let mut inner = self.inner();
        let stopped = Stopped::Members(item.step_id.family());
        if inner.is_stopped(namespace, stopped) {
            inner.stopped.remove(&stopped);
            inner.order.retain(|other| *other != stopped);
            // Who was told to stop stays told; whoever comes now watches anew.
            inner.watched.retain(|watched, _| !watched.is_of(namespace, stopped));
        }
    }

    /// Turns true when the step is to stop.
    pub(crate) fn watch(&self, namespace: &Namespace, item: &WorkItem) -> watch::Receiver<bool> {
        let mut inner = self.inner();
        let key = Watched {
            namespace: namespace.clone(),
            task: item.task_id,
            family: item.step_id.family(),
        };
        if let Some(sender) = inner.watched.get(&key) {
            return sender.subscribe();
        }
        if inner.watched.len() >= MANY_WATCHED {
            inner.watched.retain(|_, sender| sender.receiver_count() > 0);
        }
        let is_stopped = inner.is_stopped(namespace, Stopped::Task(item.task_id))
            || inner.is_stopped(namespace, Stopped::Members(item.step_id.family()));
        let (sender, receiver) = watch::channel(is_stopped);
        inner.watched.insert(key, sender);
        receiver
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn task(n: u128) -> TaskId {
        TaskId::from_uuid(Uuid::from_u128(n))
    }

    fn item(of: u128, step: u128) -> WorkItem {
        let (task, step) = (Uuid::from_u128(of), Uuid::from_u128(step));
        let item = json!({"t": task, "s": step, "n": "s", "k": "s", "a": 1, "d": 1,
            "o": Uuid::nil()});
        serde_json::from_value(item).expect("a work item")
    }

    #[test]
    fn hints_reach_running_and_later_steps_of_their_namespace() {
        let cancelled = Cancelled::default();
        let [a, b] = ["a", "b"].map(|name| name.parse::<Namespace>().expect("a name"));
        let (one, two, three) = (item(1, 1 << 32), item(2, 2 << 32), item(3, 3 << 32));
        let watch = cancelled.watch(&a, &one);
        cancelled.stop(b.clone(), Stopped::Task(task(1)));
        assert!(!*watch.borrow() && !cancelled.has_task(&a, &one));
        cancelled.stop(a.clone(), Stopped::Task(task(1)));
        assert!(*watch.borrow());
        cancelled.stop(a.clone(), Stopped::Task(task(2)));
        assert!(cancelled.has_task(&a, &two) && *cancelled.watch(&a, &two).borrow());
        assert!(!cancelled.has_task(&a, &three));
    }

    #[test]
    fn a_stopped_batch_stops_its_members_alone() {
        let cancelled = Cancelled::default();
        let a: Namespace = "a".parse().expect("a name");
        let batch = BatchId::from_uuid(Uuid::from_u128(7 << 32 | 99));
        let member = item(1, batch.member(5).as_uuid().as_u128());
        let beside = item(1, 8 << 32);
        let (stops, goes_on) = (cancelled.watch(&a, &member), cancelled.watch(&a, &beside));
        cancelled.stop(a.clone(), Stopped::batch(batch));
        assert!(*stops.borrow() && cancelled.has_batch(&a, &member));
        assert!(!*goes_on.borrow() && !cancelled.has_batch(&a, &beside));
        // It is retried: whoever was told stays told, who begins now is not.
        cancelled.resume(&a, &member);
        assert!(*stops.borrow() && !*cancelled.watch(&a, &member).borrow());
        assert!(!cancelled.has_batch(&a, &member));
    }

    #[test]
    fn memory_is_bounded() {
        let cancelled = Cancelled::default();
        let a: Namespace = "a".parse().expect("a name");
        for n in 0..MAX_REMEMBERED as u128 + 5 {
            cancelled.stop(a.clone(), Stopped::Task(task(n)));
            drop(cancelled.watch(&a, &item(n, n << 32)));
        }
        let inner = cancelled.inner();
        assert_eq!((inner.stopped.len(), inner.order.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
        assert!(inner.watched.len() <= MANY_WATCHED);
        assert!(!inner.stopped.contains_key(&Stopped::Task(task(0))));
    }
}
