//! A worker whose bus never answers, for tests of its parts.

use std::sync::Arc;

use tasker_bus::Bus;
use tasker_config::{Loader, WorkerSettings};
use tasker_messages::{NodeId, QueueRef, StepId, TaskId, WorkItem};
use tasker_sdk::HandlerRegistry;
use uuid::Uuid;

use super::core::Core;
use super::held::{Admitted, HeldSteps, Hold};
use super::ledger::Here;
use super::place::Place;
use crate::link::Link;

/// The shared parts of a worker, with some of its settings changed.
pub(super) async fn core(change: impl FnOnce(&mut WorkerSettings)) -> Arc<Core> {
    let loader = Loader::new().expect("the defaults are valid");
    let mut settings = loader.load().expect("the defaults are valid").settings;
    // Port 9 discards, where anybody listens at all.
    settings.nats.url = "nats://127.0.0.1:9".to_owned();
    change(&mut settings.worker);
    let bus = Bus::connect(&settings.nats, "tests").await.expect("it is connected later");
    let core = Core::new(bus, Arc::new(settings), HandlerRegistry::new(), "tests", Link::default());
    Arc::new(core.expect("the settings are usable"))
}

pub(super) fn queue() -> QueueRef {
    let (namespace, queue) = ("tests".parse(), "default".parse());
    QueueRef { namespace: namespace.expect("a name"), queue: queue.expect("a name") }
}

pub(super) fn place(core: &Core) -> Arc<Place> {
    Arc::new(Place::new(core, queue()))
}

/// The first attempt of a step.
pub(super) fn item(step: u128) -> WorkItem {
    WorkItem {
        task_id: TaskId::from_uuid(Uuid::from_u128(1)),
        step_id: StepId::from_uuid(Uuid::from_u128(step)),
        name: "step".into(),
        template_step: "step".into(),
        attempt: 1,
        dispatch_seq: 1,
        tries: 0,
        claim_required: false,
        fresh_until_ms: None,
        node: NodeId::from_uuid(Uuid::from_u128(1)),
        cursor: None,
        shared: None,
        limited: false,
        bundled: Vec::new(),
    }
}

/// A step that the worker holds.
pub(super) fn hold(core: &Arc<Core>, step: u128) -> Hold {
    core.ledger.take(&Here::default());
    match HeldSteps::admit(core, &place(core), &item(step), None, false) {
        Admitted::New(hold) => hold,
        Admitted::Known(_) => unreachable!("each step is held once"),
    }
}
