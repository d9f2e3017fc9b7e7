use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, counter, gauge};
use tasker_bus::Bus;
use tasker_config::Settings;
use tasker_messages::{Namespace, Queue, WorkerId};
use tasker_sdk::{DataRoots, HandlerRegistry};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::WorkerError;
use super::cancelled::Cancelled;
use super::claims::ClaimsMessage;
use super::held::HeldSteps;
use super::ledger::Ledger;
use super::outbox::Outbox;
use super::place::Place;
use super::shared_parts::SharedParts;
use crate::link::Link;

/// What all parts of one worker share. Outlives every actor, so that the death of one loses nothing
/// that runs.
pub(crate) struct Core {
    pub(crate) id: WorkerId,
    pub(crate) name: String,
    pub(crate) settings: Arc<Settings>,
    pub(crate) serves: Serves,
    pub(crate) bus: Bus,
    pub(crate) registry: HandlerRegistry,
    pub(crate) files: Arc<DataRoots>,
    pub(crate) ledger: Ledger,
    /// One permit per step that runs.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) held: HeldSteps,
    pub(crate) shared: SharedParts,
    pub(crate) cancelled: Cancelled,
    pub(crate) outbox: Outbox,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) claims: Link<ClaimsMessage>,
    pub(crate) meters: Meters,
    /// What gives back steps that were fetched ahead.
    pub(crate) given_back: Mutex<JoinSet<()>>,
    places: Mutex<Vec<Arc<Place>>>,
}

/// How far the worker is with its own life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It pulls and runs.
    Serving,
    /// It pulls nothing more; what runs may finish.
    Draining,
    /// Time is up: what still runs is given back.
    Killed,
    /// It holds nothing any more.
    Drained,
}

/// Which queues are served.
#[derive(Debug)]
pub(crate) struct Serves {
    /// `None` is every namespace that has queues.
    pub(crate) namespaces: Option<BTreeSet<Namespace>>,
    pub(crate) queues: BTreeSet<Queue>,
}

/// Counters of the hot path, looked up once.
pub(crate) struct Meters {
    pub(crate) deliveries: Counter,
    pub(crate) malformed: Counter,
    pub(crate) succeeded: Counter,
    pub(crate) failed: Counter,
    pub(crate) reports: Counter,
    pub(crate) reports_repeated: Counter,
    pub(crate) busy: Gauge,
}

impl Meters {
    fn new() -> Self {
        let finished = |result| counter!("tasker_worker_steps_finished_total", "result" => result);
        Self {
            deliveries: counter!("tasker_worker_deliveries_total"),
            malformed: counter!("tasker_worker_malformed_items_total"),
            succeeded: finished("succeeded"),
            failed: finished("failed"),
            reports: counter!("tasker_worker_reports_total"),
            reports_repeated: counter!("tasker_worker_reports_repeated_total"),
            busy: gauge!("tasker_worker_steps_held"),
        }
    }
}

impl Core {
    pub(crate) fn new(
        bus: Bus,
        settings: Arc<Settings>,
        registry: HandlerRegistry,
        name: &str,
        claims: Link<ClaimsMessage>,
    ) -> Result<Self, WorkerError> {
        let worker = &settings.worker;
        let limits = [
            ("worker.slots", worker.slots as usize),
            ("worker.gather_max", worker.gather_max as usize),
            ("worker.gather_bytes", worker.gather_bytes),
            ("worker.max_unanswered", worker.max_unanswered as usize),
            ("worker.heartbeat_ms", worker.heartbeat_ms as usize),
            ("worker.progress_ms", worker.progress_ms as usize),
            ("worker.namespaces", worker.namespaces.len()),
            ("worker.queues", worker.queues.len()),
        ];
        if let Some((setting, _)) = limits.into_iter().find(|(_, value)| *value == 0) {
            return Err(WorkerError::Empty(setting));
        }
        let files = DataRoots { base: std::env::current_dir()?, roots: worker.data_roots.clone() };
        Ok(Self {
            id: WorkerId::from_uuid(uuid::Uuid::now_v7()),
            name: name.to_owned(),
            serves: Serves::read(&worker.namespaces, &worker.queues)?,
            bus,
            registry,
            files: Arc::new(anchored(files)),
            ledger: Ledger::new(worker.slots),
            slots: Arc::new(Semaphore::new((worker.slots as usize).min(Semaphore::MAX_PERMITS))),
            held: HeldSteps::default(),
            shared: SharedParts::new(worker.shared_cache_bytes),
            cancelled: Cancelled::default(),
            outbox: Outbox::new(worker),
            stage: watch::Sender::new(Stage::Serving),
            claims,
            meters: Meters::new(),
            given_back: Mutex::default(),
            places: Mutex::default(),
            settings,
        })
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Goes on to a later stage; `false` if it was there already. There is no way back.
    pub(crate) fn raise_stage(&self, stage: Stage) -> bool {
        self.stage.send_if_modified(|now| {
            let later = *now < stage;
            *now = stage.max(*now);
            later
        })
    }

    /// The queues that are pulled now.
    pub(crate) fn places(&self) -> Vec<Arc<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_places(&self, places: Vec<Arc<Place>>) {
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = places;
    }
}

/// Relative roots are below the folder in which the worker was started.
fn anchored(files: DataRoots) -> DataRoots {
    let roots = files.roots.iter().map(|root| files.base.join(root)).collect();
    DataRoots { roots, ..files }
}

impl Serves {
    fn read(namespaces: &[String], queues: &[String]) -> Result<Self, WorkerError> {
        let name = |setting| move |source| WorkerError::Name { setting, source };
        let all = namespaces.iter().any(|name| name == "*");
        let named = namespaces.iter().filter(|name| *name != "*").map(|name| name.parse());
        let named: BTreeSet<Namespace> =
            named.collect::<Result<_, _>>().map_err(name("namespaces"))?;
        let queues = queues.iter().map(|name| name.parse());
        let queues = queues.collect::<Result<_, _>>().map_err(name("queues"))?;
        Ok(Self { namespaces: (!all).then_some(named), queues })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_what_is_served() {
        let read = |namespaces: &[&str]| {
            let namespaces: Vec<String> = namespaces.iter().map(|&n| n.to_owned()).collect();
            Serves::read(&namespaces, &["default".to_owned()])
        };
        assert!(read(&["*"]).expect("valid").namespaces.is_none());
        assert!(read(&["a", "*"]).expect("valid").namespaces.is_none());
        assert_eq!(read(&["a", "b"]).expect("valid").namespaces.map(|set| set.len()), Some(2));
        let error = read(&["A.B"]).expect_err("not a name").to_string();
        assert!(error.contains("worker.namespaces") && error.contains("A.B"), "{error}");
    }
}
