//! Announces ended tasks and wakes whoever waits for one. Sent by the actors that end tasks and by
//! the API; emits task events and cancel hints on the bus. What is lost when it dies: waiters, who
//! read the task when their time is up.

use std::collections::HashMap;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_messages::{BatchId, Hint, Namespace, TaskId, TaskState, subject};
use tasker_store::FinishedTask;
use tokio::sync::oneshot;

use super::Links;
use super::calm::Calm;
use super::node::{Node, run_detached};

/// Announces ended tasks.
pub(crate) struct FinalizerActor;

/// What the actor is told.
pub(crate) enum FinalizerMessage {
    /// Transactions of this node ended these tasks.
    Finished(Vec<FinishedTask>),
    /// A request to this node cancelled this task.
    Cancelled(FinishedTask),
    /// Transactions of this node stopped these batches.
    Stopped(Namespace, Vec<BatchId>),
    /// Another node announced the end of a task.
    Announced(TaskId),
    /// Somebody wants to know when this task ends.
    Wait { id: TaskId, ended: oneshot::Sender<()> },
    /// Look whether tasks that are waited for have ended, and whether cancelled or stopped batches
    /// have members left.
    Sweep,
    /// These have ended.
    Ended(Vec<(TaskId, TaskState)>),
}

/// What the actor keeps in mind.
pub(crate) struct FinalizerState {
    node: Node,
    waiters: HashMap<TaskId, Vec<oneshot::Sender<()>>>,
    sweeping: bool,
    calm: Calm,
}

/// Most tasks that are waited for; beyond that a waiter is answered with the task as it is.
const MAX_WAITED: usize = 100_000;
/// Members of a cancelled batch that get their outcomes by one transaction.
const CANCEL_CHUNK: u32 = 5_000;

impl Actor for FinalizerActor {
    type Msg = FinalizerMessage;
    type State = FinalizerState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<FinalizerMessage>,
        (node, _): (Node, Links),
    ) -> Result<FinalizerState, ActorProcessingErr> {
        myself.send_interval(Duration::from_secs(1), || FinalizerMessage::Sweep);
        let (waiters, calm) = (HashMap::new(), Calm::default());
        Ok(FinalizerState { node, waiters, sweeping: false, calm })
    }

    async fn handle(
        &self,
        myself: ActorRef<FinalizerMessage>,
        message: FinalizerMessage,
        state: &mut FinalizerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            FinalizerMessage::Finished(tasks) => {
                state.calm.disturb();
                tasks.iter().for_each(|task| state.wake(task.id));
                announce(&state.node, tasks, false);
            }
            FinalizerMessage::Cancelled(task) => {
                state.wake(task.id);
                announce(&state.node, vec![task], true);
                state.calm.disturb();
                state.sweep(&myself);
            }
            FinalizerMessage::Stopped(namespace, batches) => {
                hint_stopped(&state.node, namespace, batches);
                state.calm.disturb();
                state.sweep(&myself);
            }
            FinalizerMessage::Announced(id) => state.wake(id),
            FinalizerMessage::Wait { id, ended } => {
                if state.waiters.len() < MAX_WAITED {
                    state.waiters.entry(id).or_default().push(ended);
                }
            }
            FinalizerMessage::Sweep => {
                if !state.waiters.is_empty() {
                    state.calm.disturb();
                }
                if state.calm.tick() {
                    state.sweep(&myself);
                }
            }
            FinalizerMessage::Ended(tasks) => {
                state.sweeping = false;
                tasks.iter().for_each(|(id, _)| state.wake(*id));
            }
        }
        Ok(())
    }
}

impl FinalizerState {
    fn wake(&mut self, id: TaskId) {
        for waiter in self.waiters.remove(&id).unwrap_or_default() {
            let _no_longer_waits = waiter.send(());
        }
    }

    fn sweep(&mut self, myself: &ActorRef<FinalizerMessage>) {
        if self.sweeping {
            return;
        }
        self.sweeping = true;
        self.waiters.retain(|_, waiters| {
            waiters.retain(|w| !w.is_closed());
            !waiters.is_empty()
        });
        let waited: Vec<TaskId> = self.waiters.keys().copied().collect();
        let node = self.node.clone();
        let work = async move {
            while let Ok(true) = node.store.cancel_members(CANCEL_CHUNK).await {}
            let ended = if waited.is_empty() {
                Ok(Vec::new())
            } else {
                node.store.ended_tasks(&waited).await
            };
            FinalizerMessage::Ended(ended.unwrap_or_else(|error| {
                tracing::warn!(%error, "ended tasks could not be looked for");
                Vec::new()
            }))
        };
        run_detached(myself, work, || FinalizerMessage::Ended(Vec::new()));
    }
}

/// Tells workers that what they have of these batches need not start. Droppable: at worst some
/// members run in vain.
fn hint_stopped(node: &Node, namespace: Namespace, batches: Vec<BatchId>) {
    let bus = node.bus.clone();
    tokio::spawn(async move {
        for batch in batches {
            metrics::counter!("tasker_batches_stopped_total").increment(1);
            let hint = Hint::BatchStopped(batch);
            if let Err(error) = bus.publish(subject::hint(&namespace), &hint).await {
                tracing::debug!(%error, batch.id = %batch, "workers were not told of a stop");
            }
        }
    });
}

/// Tells other nodes and clients. Droppable: whoever misses it looks into the rows.
fn announce(node: &Node, tasks: Vec<FinishedTask>, cancelled: bool) {
    let bus = node.bus.clone();
    tokio::spawn(async move {
        for task in tasks {
            let state = task.state.as_str();
            metrics::counter!("tasker_tasks_finished_total", "state" => state).increment(1);
            let event = subject::task_event(&task.namespace, task.id);
            let mut sent = bus.publish(event, &task.state).await;
            if cancelled && sent.is_ok() {
                let hint = Hint::TaskCancelled(task.id);
                sent = bus.publish(subject::hint(&task.namespace), &hint).await;
            }
            if let Err(error) = sent {
                tracing::debug!(%error, task.id = %task.id, "the end of a task was not announced");
            }
        }
    });
}
