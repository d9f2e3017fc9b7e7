//! Decides which queues are pulled. Told by the orchestrators' list of queues and by news of it;
//! emits pull loops. What is lost when it dies: nothing; its loops take in what was delivered, and end.
//! What a loop has that dies itself comes back after `ack_wait`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_messages::{Introduction, Queue, QueueList, QueueRef, subject};
use tokio::sync::watch;

use super::core::{Core, Serves, Stage};
use super::heartbeat::beat_in;
use super::place::Place;
use super::pull_loop::{PullLoop, Signal};
use crate::loops::Loops;

/// Decides which queues are pulled.
pub(crate) struct IntakeActor;

/// What the intake is told.
pub(crate) enum IntakeMessage {
    /// See whether the loops still run, and whether it is time to ask for the list of queues.
    Look,
    /// Queues have been added or removed.
    QueuesChanged,
    /// These queues exist; `None` if nobody could say.
    Listed(Option<Vec<QueueRef>>),
}

/// What the intake keeps in mind. Its listener ends with it; its loops end as those of queues that are
/// gone do, beside those of the next intake.
pub(crate) struct IntakeState {
    core: Arc<Core>,
    loops: Loops,
    pulled: HashMap<QueueRef, (Arc<Place>, watch::Sender<Signal>)>,
    listener: Loops,
    /// Whether the list is being asked for.
    listing: bool,
    listed: Option<Instant>,
}

impl Drop for IntakeState {
    fn drop(&mut self) {
        for (_, signal) in self.pulled.values() {
            signal.send_modify(|signal| signal.stop = true);
        }
        self.loops.leave();
    }
}

/// How often the loops are looked after; while the worker knows of no queue, also how often the
/// list is asked for.
const LOOK: Duration = Duration::from_millis(500);
/// How often the list of queues is asked for although nobody told of a change.
const REFRESH: Duration = Duration::from_secs(5);

impl Actor for IntakeActor {
    type Msg = IntakeMessage;
    type State = IntakeState;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        myself: ActorRef<IntakeMessage>,
        core: Arc<Core>,
    ) -> Result<IntakeState, ActorProcessingErr> {
        let mut news = core.bus.subscribe(subject::QUEUES_CHANGED, None).await?;
        let mut listener = Loops::default();
        let told = myself.clone();
        listener.spawn("worker_intake.news", async move {
            while news.next().await.is_some() {
                if told.cast(IntakeMessage::QueuesChanged).is_err() {
                    return;
                }
            }
        });
        let (loops, pulled) = (Loops::default(), HashMap::new());
        let mut state = IntakeState { core, loops, pulled, listener, listing: false, listed: None };
        ask_for_queues(&myself, &mut state);
        myself.send_interval(LOOK, || IntakeMessage::Look);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<IntakeMessage>,
        message: IntakeMessage,
        state: &mut IntakeState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            IntakeMessage::Look => look(&myself, state),
            IntakeMessage::QueuesChanged => {
                for (_, signal) in state.pulled.values() {
                    signal.send_modify(|signal| signal.changes += 1);
                }
                ask_for_queues(&myself, state);
                Ok(())
            }
            IntakeMessage::Listed(queues) => {
                state.listing = false;
                if let Some(queues) = queues.filter(|_| state.core.stage() == Stage::Serving) {
                    state.listed = Some(Instant::now());
                    pull(state, choose(&state.core.serves, queues)).await;
                }
                Ok(())
            }
        }
    }
}

fn look(
    myself: &ActorRef<IntakeMessage>,
    state: &mut IntakeState,
) -> Result<(), ActorProcessingErr> {
    state.listener.all_go_on()?;
    state.loops.none_died()?;
    let due = state.listed.is_none_or(|listed| listed.elapsed() >= REFRESH);
    if due || state.pulled.is_empty() {
        ask_for_queues(myself, state);
    }
    Ok(())
}

fn ask_for_queues(myself: &ActorRef<IntakeMessage>, state: &mut IntakeState) {
    if std::mem::replace(&mut state.listing, true) {
        return;
    }
    let (myself, core) = (myself.clone(), Arc::clone(&state.core));
    tokio::spawn(async move {
        let queues = match named(&core.serves) {
            Some(queues) => Some(queues),
            None => list(&core).await,
        };
        let _stopped = myself.cast(IntakeMessage::Listed(queues));
    });
}

/// The queues of a worker whose namespaces are named in its settings.
fn named(serves: &Serves) -> Option<Vec<QueueRef>> {
    let namespaces = serves.namespaces.as_ref()?.iter();
    let queues = namespaces.flat_map(|namespace| {
        serves
            .queues
            .iter()
            .map(|queue| QueueRef { namespace: namespace.clone(), queue: queue.clone() })
    });
    Some(queues.collect())
}

async fn list(core: &Core) -> Option<Vec<QueueRef>> {
    let timeout = core.settings.nats.request_timeout();
    let subject = subject::QUEUES_LIST.to_owned();
    match core.bus.request::<_, QueueList>(subject, &introduction(core), timeout).await {
        Ok(list) => Some(list.queues),
        Err(error) => {
            tracing::debug!(%error, "the queues are not known");
            None
        }
    }
}

/// What the worker has for queues of which it pulls none: in those that it pulls, it is heard by its
/// heartbeats.
fn introduction(core: &Core) -> Option<Introduction> {
    let places = core.places();
    let unheard = |queue: &&Queue| places.iter().all(|place| place.queue != **queue);
    let queues: Vec<Queue> = core.serves.queues.iter().filter(unheard).cloned().collect();
    (core.stage() == Stage::Serving && !queues.is_empty()).then(|| Introduction {
        worker: core.id,
        queues,
        callables: core.registry.callables().map(str::to_owned).collect(),
        resolves: core.registry.resolves(),
    })
}

/// Those of the queues that exist which this worker serves.
fn choose(serves: &Serves, mut queues: Vec<QueueRef>) -> Vec<QueueRef> {
    queues.retain(|queue| {
        serves.queues.contains(&queue.queue)
            && serves.namespaces.as_ref().is_none_or(|named| named.contains(&queue.namespace))
    });
    queues
}

/// Starts loops for new queues and stops those of queues that are gone.
async fn pull(state: &mut IntakeState, queues: Vec<QueueRef>) {
    state.pulled.retain(|queue, (_, signal)| {
        let stays = queues.contains(queue);
        if !stays {
            tracing::info!(%queue.namespace, %queue.queue, "queue not pulled any more");
            signal.send_modify(|signal| signal.stop = true);
        }
        stays
    });
    let (mut places, mut signals) = (Vec::new(), Vec::new());
    for queue in queues {
        if state.pulled.contains_key(&queue) {
            continue;
        }
        tracing::info!(%queue.namespace, %queue.queue, "pulling queue");
        let place = Arc::new(Place::new(&state.core, queue.clone()));
        let (signal, told) = watch::channel(Signal::default());
        places.push(Arc::clone(&place));
        signals.push(told);
        state.pulled.insert(queue, (place, signal));
    }
    state.core.set_places(state.pulled.values().map(|(place, _)| Arc::clone(place)).collect());
    // Before anything is asked for: should the worker die of the first step that it gets, somebody has heard
    // of it.
    beat_in(&state.core, &places, state.core.settings.worker.heartbeat()).await;
    for (place, told) in places.into_iter().zip(signals) {
        let pull_loop = PullLoop::new(&state.core, place, told);
        state.loops.spawn("worker_intake.queue", pull_loop.run());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn queues_that_are_served() {
        let queue = |namespace: &str, queue: &str| QueueRef {
            namespace: namespace.parse().expect("a name"),
            queue: queue.parse().expect("a name"),
        };
        let serves = |namespaces: Option<&[&str]>, queues: &[&str]| Serves {
            namespaces: namespaces
                .map(|names| names.iter().map(|n| n.parse().expect("a name")).collect()),
            queues: queues.iter().map(|q| q.parse().expect("a name")).collect::<BTreeSet<_>>(),
        };
        let exist = || vec![queue("a", "default"), queue("a", "gpu"), queue("b", "default")];
        let all = serves(None, &["default"]);
        assert_eq!(choose(&all, exist()), [queue("a", "default"), queue("b", "default")]);
        assert_eq!(named(&all), None);
        let some = serves(Some(&["b", "c"]), &["default", "gpu"]);
        assert_eq!(choose(&some, exist()), [queue("b", "default")]);
        assert_eq!(named(&some).map(|queues| queues.len()), Some(4));
    }
    #[tokio::test]
    async fn loops_outlive_their_intake_and_are_told_to_end() {
        let core = super::super::fixture::core(|_| {}).await;
        let queue = super::super::fixture::queue();
        let (signal, mut told) = watch::channel(Signal::default());
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        let mut loops = Loops::default();
        loops.spawn("worker_intake.queue", async move {
            let stopped = told.wait_for(|signal| signal.stop).await.is_ok();
            let _nobody_waits = ended.send(stopped);
        });
        let place = Arc::new(Place::new(&core, queue.clone()));
        let pulled = HashMap::from([(queue, (place, signal))]);
        let listener = Loops::default();
        drop(IntakeState { core, loops, pulled, listener, listing: false, listed: None });
        assert_eq!(has_ended.await, Ok(true));
    }
}
