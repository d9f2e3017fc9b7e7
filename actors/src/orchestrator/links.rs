use std::time::Duration;

use tasker_messages::{Accepted, Refusal, TaskId, TaskRequest, WorkerView, code};
use tokio::sync::oneshot;

use super::Node;
use super::batch_processing::BatchProcessingMessage;
use super::checkpoints::CheckpointsMessage;
use super::convergence::ConvergenceMessage;
use super::dispatch::DispatchMessage;
use super::finalizer::FinalizerMessage;
use super::gateway::GatewayMessage;
use super::heartbeats::tell_to_drain;
use super::intake::{IntakeMessage, Submission, SubmissionSource};
use super::limits::refresh;
use super::outcomes::{OutcomesMessage, pass_on};
use super::timers::TimersMessage;
use crate::link::Link;

/// How the actors of one orchestrator reach each other.
#[derive(Clone, Default)]
pub struct Links {
    pub(crate) intake: Link<IntakeMessage>,
    pub(crate) outcomes: Link<OutcomesMessage>,
    pub(crate) batch_processing: Link<BatchProcessingMessage>,
    pub(crate) checkpoints: Link<CheckpointsMessage>,
    pub(crate) convergence: Link<ConvergenceMessage>,
    pub(crate) dispatch: Link<DispatchMessage>,
    pub(crate) timers: Link<TimersMessage>,
    pub(crate) finalizer: Link<FinalizerMessage>,
    pub(crate) gateway: Link<GatewayMessage>,
}

/// How long a submission may wait for its transaction before it is refused as "try again".
const SUBMIT_WAIT: Duration = Duration::from_secs(30);

impl Links {
    /// Submits a task; answered after COMMIT.
    ///
    /// # Errors
    /// A refusal of the request, or one that asks to try again with the same idempotency key.
    pub async fn submit(&self, request: TaskRequest) -> Result<Accepted, Refusal> {
        let (answer, answered) = oneshot::channel();
        let source = SubmissionSource::Request(answer);
        let submission = Box::new(Submission { request, source });
        self.intake.cast(IntakeMessage::Submit(submission));
        match tokio::time::timeout(SUBMIT_WAIT, answered).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) | Err(_) => Err(Refusal::retry(
                code::UNAVAILABLE,
                "it is not known whether the task was accepted; try again with the same idempotency key",
            )),
        }
    }

    /// Waits until a task ends, at most this long. Says whether it is known to have ended.
    pub async fn wait_for_end(&self, id: TaskId, at_most: Duration) -> bool {
        let (ended, has_ended) = oneshot::channel();
        self.finalizer.cast(FinalizerMessage::Wait { id, ended });
        // Time up and a lost waiter are the same to the caller: it reads the task as it is.
        matches!(tokio::time::timeout(at_most, has_ended).await, Ok(Ok(())))
    }

    /// A task was repaired by request: what runs again is sent, what was settled is followed up.
    pub fn repaired(&self, task: TaskId, done: tasker_store::RepairDone) {
        let Some(namespace) = done.namespace else { return };
        if !done.ready.is_empty() {
            self.dispatch.cast(DispatchMessage::Ready(done.ready));
        }
        let batches = done.batches.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        if !batches.is_empty() {
            self.dispatch.cast(DispatchMessage::Sealed(batches));
        }
        self.convergence.cast(ConvergenceMessage::Check(vec![task]));
        if let Some(attempt) = done.completed {
            self.outcomes.cast(OutcomesMessage::Completed(namespace.clone(), attempt));
        }
        pass_on(self, namespace, done.applied);
    }

    /// Limits were changed by request: they hold on this node when this returns, and on the others
    /// after their next look.
    pub async fn limits_changed(&self, node: &Node) {
        match refresh(node).await {
            Ok(changed) => {
                self.dispatch.cast(DispatchMessage::Limited(changed));
            }
            Err(error) => {
                tracing::warn!(%error, "changed limits could not be read; the next sweep reads them")
            }
        }
    }

    /// A worker is to take nothing more, which its row says already: it is told at once.
    pub async fn worker_drains(&self, node: &Node, worker: &WorkerView) {
        tell_to_drain(node, &worker.namespace, worker.id).await;
    }

    /// A task was cancelled by request: workers are told, its batches get their outcomes.
    pub fn task_cancelled(&self, task: tasker_store::FinishedTask) {
        self.finalizer.cast(FinalizerMessage::Cancelled(task));
    }
}
