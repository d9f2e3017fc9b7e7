//! The worker half: pulls steps, runs handlers, reports outcomes.
//!
//! Actors own what has state or a timer: which queues are pulled (`intake`), claims in flight
//! (`claims`), reports in flight (`outcomes`), signs of life (`heartbeat`), analyzers that run for
//! plans (`plans`). A step itself is a task (`execute`) between two bounded queues, so that the hot
//! path never waits for a mailbox.

mod backend;
mod cancelled;
mod claims;
mod core;
mod drain;
mod execute;
#[cfg(test)]
mod fixture;
mod giving_back;
mod heartbeat;
mod held;
mod intake;
mod judge;
mod ledger;
mod message;
mod outbox;
mod outcomes;
mod pace;
mod place;
mod plan_backend;
mod plans;
mod pull_loop;
mod report;
mod reserved;
mod retry;
mod shared_parts;

use std::sync::Arc;

use ractor::SpawnErr;
use tasker_bus::Bus;
use tasker_config::Settings;
use tasker_messages::InvalidName;
use tasker_sdk::HandlerRegistry;
use tokio::sync::watch;

use self::claims::{ClaimsActor, ClaimsMessage};
use self::core::{Core, Stage};
use self::heartbeat::HeartbeatActor;
use self::intake::IntakeActor;
use self::outcomes::OutcomesActor;
use self::plans::PlansActor;
use crate::link::Link;
use crate::supervisor::{Child, Supervisor};

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A namespace or queue of the settings is not a name.
    #[error("worker.{setting}: {source}")]
    Name {
        /// The setting.
        setting: &'static str,
        /// What is wrong.
        source: InvalidName,
    },
    /// A setting that must not be zero or empty.
    #[error("{0} must not be 0 or empty")]
    Empty(&'static str),
    /// The folder that relative paths start from is not known.
    #[error("the current folder is not accessible: {0}")]
    Folder(#[from] std::io::Error),
    /// An actor did not start.
    #[error("an actor did not start: {0}")]
    Spawn(#[from] SpawnErr),
}

/// A running worker. It stops in an orderly way only through [`Worker::drain`].
pub struct Worker {
    core: Arc<Core>,
    supervisor: Supervisor,
}

impl Worker {
    /// Starts to pull and run steps. The bus need not be connected yet.
    ///
    /// # Errors
    /// If a setting is unusable.
    pub async fn start(
        bus: Bus,
        settings: Arc<Settings>,
        registry: HandlerRegistry,
        name: &str,
    ) -> Result<Self, WorkerError> {
        let claims = Link::default();
        let core = Arc::new(Core::new(bus, settings, registry, name, claims.clone())?);
        let shared = Arc::clone(&core);
        let children = children(claims, move || Arc::clone(&shared));
        let supervisor = Supervisor::start(children, core.settings.supervision.clone()).await?;
        tracing::info!(worker = %core.id, name, "worker started");
        Ok(Self { core, supervisor })
    }

    /// Becomes `true` when an actor died more often than its budget allows.
    pub fn exhausted(&self) -> watch::Receiver<bool> {
        self.supervisor.exhausted()
    }

    /// Waits until the worker has been asked to drain and holds nothing any more.
    pub async fn drained(&self) {
        let mut stage = self.core.stage.subscribe();
        // The sender is part of the worker.
        let _gone = stage.wait_for(|stage| *stage == Stage::Drained).await;
    }

    /// Stops: nothing more is pulled, what runs may finish within `worker.drain_ms`, outcomes are
    /// reported, and what could not finish is given back without a charge.
    pub async fn drain(self) {
        self.core.drain().await;
        self.supervisor.stop(self.core.settings.worker.heartbeat()).await;
    }
}

/// The actors in the order of their start: what has been pulled finds all others there.
fn children(
    claims: Link<ClaimsMessage>,
    core: impl Fn() -> Arc<Core> + Clone + Send + Sync + 'static,
) -> Vec<Child> {
    let with = || core.clone();
    vec![
        Child::new("worker_outcomes", Link::default(), || OutcomesActor, with()),
        Child::new("worker_claims", claims, || ClaimsActor, with()),
        Child::new("worker_heartbeat", Link::default(), || HeartbeatActor, with()),
        Child::new("worker_plans", Link::default(), || PlansActor, with()),
        Child::new("worker_intake", Link::default(), || IntakeActor, with()),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Whoever adds an actor adds a place at which it can be made to panic.
    #[test]
    fn every_actor_can_be_made_to_panic() {
        let children = children(Link::default(), || unreachable!("nothing is started"));
        let names: BTreeSet<&str> = children.iter().map(Child::name).collect();
        let points = tasker_guards::PANIC_POINTS.into_iter();
        let of_actors = points.filter(|p| p.starts_with("worker_") && !p.contains('.'));
        assert_eq!(names, of_actors.collect());
    }
}
