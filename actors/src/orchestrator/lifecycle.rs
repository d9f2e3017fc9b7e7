//! Looks at tasks whose template limits time, and removes those that have ended long ago. Sent by nobody:
//! it asks the rows once a second, more rarely where nothing happens, and every `retention.interval_ms`;
//! emits ended tasks to the finalizer and overdue attempts to the outcomes actor. What is lost when it dies:
//! one look, which comes again.

use std::collections::HashMap;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_messages::Namespace;
use tasker_store::{FinishedAttempt, Reviewed};
use tokio::sync::oneshot;

use super::Links;
use super::calm::Calm;
use super::finalizer::FinalizerMessage;
use super::node::{Node, run_detached};
use super::outcomes::{OutcomesMessage, Report};
use super::retention::sweep;

/// Looks at tasks whose template limits time, and removes those that have ended long ago.
pub(crate) struct LifecycleActor;

/// What the actor is told.
pub(crate) enum LifecycleMessage {
    /// Look now.
    Look,
    /// A look has ended.
    Looked(Box<Reviewed>),
    /// Remove finished tasks now.
    Sweep,
    /// A sweep has ended.
    Swept,
}

/// What the actor keeps in mind.
pub(crate) struct LifecycleState {
    node: Node,
    links: Links,
    looking: bool,
    sweeping: bool,
    calm: Calm,
}

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Tasks that are looked at in one go.
const MAX_REVIEWED: u32 = 256;

impl Actor for LifecycleActor {
    type Msg = LifecycleMessage;
    type State = LifecycleState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        myself: ActorRef<LifecycleMessage>,
        (node, links): (Node, Links),
    ) -> Result<LifecycleState, ActorProcessingErr> {
        myself.send_interval(INTERVAL, || LifecycleMessage::Look);
        myself.send_interval(node.settings.retention.interval(), || LifecycleMessage::Sweep);
        let (looking, sweeping, calm) = (false, false, Calm::default());
        Ok(LifecycleState { node, links, looking, sweeping, calm })
    }

    async fn handle(
        &self,
        myself: ActorRef<LifecycleMessage>,
        message: LifecycleMessage,
        state: &mut LifecycleState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            LifecycleMessage::Look => {
                if state.calm.tick() {
                    state.look(&myself);
                }
            }
            LifecycleMessage::Looked(reviewed) => {
                state.looking = false;
                if reviewed.tasks > 0 {
                    state.calm.disturb();
                }
                let more = reviewed.tasks >= MAX_REVIEWED;
                state.follow(*reviewed);
                if more {
                    state.look(&myself);
                }
            }
            LifecycleMessage::Sweep => state.sweep(&myself),
            LifecycleMessage::Swept => state.sweeping = false,
        }
        Ok(())
    }
}

impl LifecycleState {
    fn look(&mut self, myself: &ActorRef<LifecycleMessage>) {
        if self.looking {
            return;
        }
        self.looking = true;
        let node = self.node.clone();
        let work = async move {
            // A worker that is alive renews its leases; what it has not renewed for so long is lost.
            let grace_ms = node.settings.worker.lease_ms;
            let reviewed = node.store.review_tasks(MAX_REVIEWED, grace_ms).await;
            LifecycleMessage::Looked(Box::new(reviewed.unwrap_or_else(|error| {
                tracing::warn!(%error, "the times of tasks could not be looked at");
                Reviewed::default()
            })))
        };
        run_detached(myself, work, || LifecycleMessage::Looked(Box::default()));
    }

    fn sweep(&mut self, myself: &ActorRef<LifecycleMessage>) {
        if self.sweeping {
            return;
        }
        self.sweeping = true;
        let node = self.node.clone();
        let work = async move {
            sweep(&node).await;
            LifecycleMessage::Swept
        };
        run_detached(myself, work, || LifecycleMessage::Swept);
    }

    fn follow(&self, reviewed: Reviewed) {
        for task in reviewed.ended {
            metrics::counter!("tasker_tasks_stale_total",
                "namespace" => task.namespace.to_string())
            .increment(1);
            self.links.finalizer.cast(FinalizerMessage::Cancelled(task));
        }
        let mut by_namespace: HashMap<Namespace, Vec<FinishedAttempt>> = HashMap::new();
        for (namespace, attempt) in reviewed.overdue {
            by_namespace.entry(namespace).or_default().push(attempt);
        }
        for (namespace, attempts) in by_namespace {
            metrics::counter!("tasker_attempts_overdue_total",
                "namespace" => namespace.to_string())
            .increment(attempts.len() as u64);
            // Nobody waits for the verdicts: what is not stored is overdue at the next look, too.
            let (answer, _) = oneshot::channel();
            let report = Report { namespace, attempts, answer };
            self.links.outcomes.cast(OutcomesMessage::Report(Box::new(report)));
        }
    }
}
