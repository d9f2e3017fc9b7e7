//! Droppable messages: heartbeats of workers and hints to them.

use serde::{Deserialize, Serialize};

use crate::{BatchId, Queue, StepId, TaskId, WorkerId};

/// A sign of life of one worker for one namespace, on `tasker.beat.<namespace>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The worker.
    pub worker: WorkerId,
    /// The worker's name for people, e.g. host and process id.
    pub name: String,
    /// The build of the worker.
    pub build: String,
    /// What the worker pulls.
    pub queues: Vec<QueueLoad>,
    /// Callables that the worker offers.
    pub callables: Vec<String>,
    /// Whether it has others, which resolvers find when they are asked for.
    #[serde(default)]
    pub resolves: bool,
    /// Steps that have been running for longer than a heartbeat.
    pub running: Vec<RunningStep>,
    /// Whether the worker takes nothing more, because it stops or was asked to drain.
    pub draining: bool,
    /// Whether it holds nothing any more either.
    #[serde(default)]
    pub drained: bool,
    /// Whether it takes messages that bring several members of a batch.
    #[serde(default)]
    pub bundles: bool,
}

/// One queue as a worker sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueLoad {
    /// The queue.
    pub queue: Queue,
    /// Steps that the worker can run at a time.
    pub slots: u32,
    /// Steps of this queue that it runs now.
    pub busy: u32,
}

/// One step that a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningStep {
    /// The step.
    pub step_id: StepId,
    /// The attempt.
    pub attempt: u32,
}

/// A hint to workers, on `tasker.hint.<namespace>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// The task was cancelled: what runs of it may stop, what arrives of it need not start.
    TaskCancelled(TaskId),
    /// The batch was stopped, because too many of its members failed: the same for its members.
    BatchStopped(BatchId),
    /// This worker is to take nothing more. Repeated until its heartbeats say that it does so.
    DrainWorker(WorkerId),
}
