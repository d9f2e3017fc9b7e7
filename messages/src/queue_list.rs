use serde::{Deserialize, Serialize};

use crate::{Namespace, Queue, WorkerId};

/// Who asks on `tasker.queues.list`, while it serves queues that do not exist in any namespace, so that
/// nobody hears of them by heartbeats: it may have been started before the first task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The worker.
    pub worker: WorkerId,
    /// Those queues.
    pub queues: Vec<Queue>,
    /// Callables that it offers.
    pub callables: Vec<String>,
    /// Whether it has others, which resolvers find when they are asked for.
    pub resolves: bool,
}

/// The queues that exist, the answer on `tasker.queues.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueList {
    /// All of them.
    pub queues: Vec<QueueRef>,
}

/// One queue of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueRef {
    /// The namespace.
    pub namespace: Namespace,
    /// The queue.
    pub queue: Queue,
}
