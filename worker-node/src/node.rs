use std::sync::Arc;

use tasker_actors::worker::{Worker, WorkerError};
use tasker_bus::{Bus, BusError};
use tasker_config::Settings;
use tasker_sdk::HandlerRegistry;

/// Why a worker cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerNodeError {
    /// The address of the bus is not usable.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A setting is not usable.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A part of the worker died more often than `supervision` allows; the log says of what. The
    /// host should start it anew, best in a new process.
    #[error("a part of the worker died too often; see the log for its errors")]
    Exhausted,
}

/// A running worker. Dropping it stops nothing: use [`WorkerNode::stop`].
pub struct WorkerNode {
    worker: Worker,
    bus: Bus,
}

impl WorkerNode {
    /// Starts a worker with these handlers, in the runtime of the caller. The bus need not be
    /// reachable yet: connecting goes on in the background, for ever.
    ///
    /// # Errors
    /// If a setting is not usable.
    pub async fn start(
        settings: Settings,
        registry: HandlerRegistry,
        name: &str,
    ) -> Result<Self, WorkerNodeError> {
        let bus = Bus::connect(&settings.nats, name).await?;
        let worker = Worker::start(bus.clone(), Arc::new(settings), registry, name).await?;
        Ok(Self { worker, bus })
    }

    /// Stops in an orderly way: nothing more is pulled, what runs may finish within
    /// `worker.drain_ms`, outcomes are reported, and what could not finish is given back without a
    /// charge to its retry budget. Takes at most some seconds more than `worker.drain_ms`.
    pub async fn stop(self) {
        self.worker.drain().await;
        if let Err(error) = self.bus.drain().await {
            tracing::debug!(%error, "the connection was closed already");
        }
    }

    /// Waits until the worker has been asked to drain and holds nothing any more. It never takes
    /// anything again; only its heartbeats go on, until it is stopped. Safe to cancel.
    pub async fn drained(&self) {
        self.worker.drained().await;
    }

    /// Waits until the worker cannot go on, which normally never happens. Safe to cancel, e.g. in
    /// a `select!` with the signals of the host.
    pub async fn wait(&self) -> WorkerNodeError {
        let mut exhausted = self.worker.exhausted();
        // A supervisor that is gone restarts nothing, which is as bad.
        let _gone = exhausted.wait_for(|&exhausted| exhausted).await;
        WorkerNodeError::Exhausted
    }
}
