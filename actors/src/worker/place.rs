use std::sync::Arc;

use tasker_messages::{Namespace, Queue, QueueRef, subject};
use tasker_sdk::StepBackend;

use super::backend::BusBackend;
use super::core::Core;

/// One queue of one namespace that the worker pulls.
pub(crate) struct Place {
    pub(crate) namespace: Namespace,
    pub(crate) queue: Queue,
    pub(crate) durable: String,
    pub(crate) backend: Arc<dyn StepBackend>,
}

impl Place {
    pub(crate) fn new(core: &Core, queue: QueueRef) -> Self {
        let QueueRef { namespace, queue } = queue;
        let backend =
            BusBackend::new(core.bus.clone(), &namespace, core.settings.nats.request_timeout());
        let durable = subject::work_durable(&namespace, &queue);
        Self { namespace, queue, durable, backend: Arc::new(backend) }
    }
}
