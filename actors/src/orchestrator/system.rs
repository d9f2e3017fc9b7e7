//! The actor tree of one orchestrator process.

use std::sync::Arc;
use std::time::Duration;

use tasker_bus::{Bus, BusError};
use tasker_config::Settings;
use tasker_messages::{InvalidName, NodeId, StepName};
use tasker_store::{Store, StoreError};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::batch_processing::BatchProcessingActor;
use super::checkpoints::CheckpointsActor;
use super::convergence::ConvergenceActor;
use super::dispatch::DispatchActor;
use super::finalizer::FinalizerActor;
use super::gateway::{GatewayActor, GatewayMessage};
use super::heartbeats::HeartbeatsActor;
use super::intake::IntakeActor;
use super::lifecycle::LifecycleActor;
use super::limits::refresh;
use super::outcomes::OutcomesActor;
use super::reconciler::ReconcilerActor;
use super::shares::SharesActor;
use super::timers::TimersActor;
use super::{Links, Node};
use crate::link::Link;
use crate::supervisor::{Child, Supervisor};

/// A running orchestrator.
pub struct Orchestrator {
    node: Node,
    links: Links,
    supervisor: Supervisor,
}

/// Why an orchestrator could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The environment of the settings has a name that none can have.
    #[error("node.environment: {0}")]
    Environment(#[from] InvalidName),
    /// An actor.
    #[error("an actor could not start: {0}")]
    Actor(#[from] ractor::SpawnErr),
}

impl Orchestrator {
    /// Connects to database and bus, makes sure that the streams exist and starts the actors.
    pub async fn start(settings: Arc<Settings>) -> Result<Self, StartError> {
        let id = NodeId::from_uuid(Uuid::now_v7());
        let environment = match settings.node.environment.as_str() {
            "" => None,
            // One that no template can mention would silently change nothing.
            name => Some(StepName::new(name)?),
        };
        let mut store = Store::connect(&settings.database).await?;
        // Now, and not with the first statement that wants what is not there.
        store.schema().await?.check()?;
        if let Some(name) = environment {
            store = store.in_environment(name.as_str());
        }
        let bus =
            Bus::connect(&settings.nats, &format!("tasker-orchestrator-{}", id.token())).await?;
        bus.ensure_streams(&settings.streams).await?;
        let (offers, limits) = (Arc::default(), Arc::default());
        let node = Node { id, store, bus, settings, offers, limits };
        // Before anything is accepted or sent: a limit that is not known is none.
        refresh(&node).await?;
        let links = Links::default();
        let settings = node.settings.supervision.clone();
        let arguments = (node.clone(), links.clone());
        let children = children(&links, move || arguments.clone());
        let supervisor = Supervisor::start(children, settings).await?;
        Ok(Self { node, links, supervisor })
    }

    /// What the actors work with.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// How to reach the actors.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Becomes `true` when an actor died more often than its budget allows: the process should end.
    pub fn exhausted(&self) -> watch::Receiver<bool> {
        self.supervisor.exhausted()
    }

    /// Answers what has been asked and takes nothing more, so that nobody waits in vain; then stops the
    /// actors, and closes bus and database. What was under way is finished by other nodes or after the
    /// next start.
    pub async fn stop(self) {
        const ANSWERS: Duration = Duration::from_secs(5);
        const ACTORS: Duration = Duration::from_secs(3);
        const CONNECTIONS: Duration = Duration::from_secs(3);
        let (answered, all_answered) = oneshot::channel();
        self.links.gateway.cast(GatewayMessage::End(answered));
        if !matches!(tokio::time::timeout(ANSWERS, all_answered).await, Ok(Ok(()))) {
            tracing::warn!("not all requests were answered; they are repeated elsewhere");
        }
        self.supervisor.stop(ACTORS).await;
        if let Err(error) = self.node.bus.drain().await {
            tracing::warn!(%error, "the connection to the bus was not drained");
        }
        leave_batches(&self.node).await;
        // Whoever still uses one is cut off when the process ends, and Postgres rolls back.
        if tokio::time::timeout(CONNECTIONS, self.node.store.close()).await.is_err() {
            tracing::warn!("connections to the database are still in use");
        }
    }
}

/// Others need not wait for a lease to publish what this node has begun.
async fn leave_batches(node: &Node) {
    const LIMIT: Duration = Duration::from_secs(1);
    match tokio::time::timeout(LIMIT, node.store.leave_batches(node.id)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "batches are left when their leases end"),
        Err(_) => tracing::debug!("batches are left when their leases end"),
    }
}

/// The actors in the order of their start: whoever is sent something is there before its sender.
fn children(
    links: &Links,
    arguments: impl Fn() -> (Node, Links) + Clone + Send + Sync + 'static,
) -> Vec<Child> {
    let with = || arguments.clone();
    vec![
        Child::new("finalizer", links.finalizer.clone(), || FinalizerActor, with()),
        Child::new("dispatch", links.dispatch.clone(), || DispatchActor, with()),
        Child::new("timers", links.timers.clone(), || TimersActor, with()),
        Child::new("convergence", links.convergence.clone(), || ConvergenceActor, with()),
        Child::new(
            "batch_processing",
            links.batch_processing.clone(),
            || BatchProcessingActor,
            with(),
        ),
        Child::new("checkpoints", links.checkpoints.clone(), || CheckpointsActor, with()),
        Child::new("outcomes", links.outcomes.clone(), || OutcomesActor, with()),
        Child::new("intake", links.intake.clone(), || IntakeActor, with()),
        Child::new("lifecycle", Link::default(), || LifecycleActor, with()),
        Child::new("heartbeats", Link::default(), || HeartbeatsActor, with()),
        Child::new("shares", Link::default(), || SharesActor, with()),
        Child::new("reconciler", Link::default(), || ReconcilerActor, with()),
        Child::new("gateway", links.gateway.clone(), || GatewayActor, with()),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Whoever adds an actor adds a place at which it can be made to panic.
    #[test]
    fn every_actor_can_be_made_to_panic() {
        let children = children(&Links::default(), || unreachable!("nothing is started"));
        let names: BTreeSet<&str> = children.iter().map(Child::name).collect();
        let points = tasker_guards::PANIC_POINTS.into_iter();
        let of_actors = points.filter(|p| !p.starts_with("worker_") && !p.contains('.'));
        assert_eq!(names, of_actors.collect());
    }
}
