use serde::{Deserialize, Serialize};

use crate::{Namespace, Queue};

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
