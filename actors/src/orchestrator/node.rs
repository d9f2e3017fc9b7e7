use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ractor::{ActorRef, Message};
use tasker_bus::Bus;
use tasker_config::Settings;
use tasker_messages::NodeId;
use tasker_store::Store;

use super::heartbeats::live_within;
use super::limits::Limits;
use super::offers::Offers;

/// What every actor of an orchestrator works with.
#[derive(Clone)]
pub struct Node {
    /// This process.
    pub id: NodeId,
    /// The truth.
    pub store: Store,
    /// The carrier.
    pub bus: Bus,
    /// The settings.
    pub settings: Arc<Settings>,
    /// What live workers can run.
    pub offers: Arc<Offers>,
    /// What namespaces and queues are limited to.
    pub limits: Arc<Limits>,
}

impl Node {
    /// How old the recorded heartbeat of a worker that is alive may be.
    pub fn workers_live_within(&self) -> Duration {
        live_within(&self.settings.worker)
    }

    /// Whether consumers may count deliveries as unacknowledged whose acknowledgement was lost with the
    /// server: until their time is over, and the reconciler has seen twice that it is.
    pub(crate) fn acks_were_lost(&self) -> bool {
        let time = self.settings.streams.ack_wait() + self.settings.reconciler.confirm();
        self.bus.connection().borrow().replaced_another_within(time)
    }
}

/// Runs work outside of an actor and casts what it says back.
///
/// Work on the database is never done inside `handle`: an actor that is killed would drop it at any
/// await, also between BEGIN and COMMIT. Here nobody can. If the work panics, the actor is told the
/// `lost` message, so that nothing waits for an answer that never comes.
pub(crate) fn run_detached<M: Message>(
    actor: &ActorRef<M>,
    work: impl Future<Output = M> + Send + 'static,
    lost: impl FnOnce() -> M + Send + 'static,
) {
    let actor = actor.clone();
    tokio::spawn(async move {
        // Nothing of the work is used after a panic.
        let message = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(message) => message,
            Err(_) => {
                tracing::error!("work of an actor panicked and was lost");
                lost()
            }
        };
        if actor.cast(message).is_err() {
            tracing::debug!("an actor was gone before its work was done");
        }
    });
}
