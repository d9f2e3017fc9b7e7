//! Reports finished attempts. Fed by the outbox; emits reports and, after their verdicts,
//! acknowledgements. What is lost when it dies: nothing; the outbox outlives it, and reports in
//! flight are tasks of their own.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Receiver;

use super::core::Core;
use super::outbox::Finished;
use super::report::{Report, deliver};
use crate::loops::Loops;

/// Reports finished attempts.
pub(crate) struct OutcomesActor;

/// What the actor is told.
pub(crate) enum OutcomesMessage {
    /// See whether the gatherer still runs.
    Check,
}

/// What the actor keeps in mind: its gatherer ends with it.
pub(crate) struct OutcomesState {
    gatherer: Loops,
}

impl Actor for OutcomesActor {
    type Msg = OutcomesMessage;
    type State = OutcomesState;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        myself: ActorRef<OutcomesMessage>,
        core: Arc<Core>,
    ) -> Result<OutcomesState, ActorProcessingErr> {
        let mut gatherer = Loops::default();
        gatherer.spawn("worker_outcomes.gatherer", gather(core));
        myself.send_interval(Duration::from_secs(1), || OutcomesMessage::Check);
        Ok(OutcomesState { gatherer })
    }

    async fn handle(
        &self,
        _: ActorRef<OutcomesMessage>,
        OutcomesMessage::Check: OutcomesMessage,
        state: &mut OutcomesState,
    ) -> Result<(), ActorProcessingErr> {
        state.gatherer.all_go_on()
    }
}

/// Makes reports of what is finished: at once when nothing is being reported, larger ones under
/// load. At most `max_unanswered` reports are without an answer.
async fn gather(core: Arc<Core>) {
    let settings = &core.settings.worker;
    let most = settings.gather_max as usize;
    let mut receiver = core.outbox.receiver.lock().await;
    let mut set = Vec::with_capacity(most);
    loop {
        let mut permit = Some(acquire(&core).await);
        if receiver.recv_many(&mut set, most).await == 0 {
            return;
        }
        let in_flight =
            settings.max_unanswered as usize - 1 > core.outbox.unanswered.available_permits();
        if in_flight {
            let limits = (most, settings.gather_bytes, settings.gather());
            gather_more(&mut receiver, &mut set, limits).await;
        }
        for report in Report::sort(set.drain(..), settings.gather_bytes) {
            let unanswered = match permit.take() {
                Some(permit) => permit,
                None => acquire(&core).await,
            };
            tokio::spawn(deliver(Arc::clone(&core), report, unanswered));
        }
    }
}

/// A permit for one report.
async fn acquire(core: &Core) -> OwnedSemaphorePermit {
    loop {
        // The semaphore is never closed.
        if let Ok(permit) = Arc::clone(&core.outbox.unanswered).acquire_owned().await {
            return permit;
        }
        tokio::task::yield_now().await;
    }
}

/// Adds to a set until it is large enough or the time is up.
async fn gather_more(
    receiver: &mut Receiver<Finished>,
    set: &mut Vec<Finished>,
    (most, most_bytes, time): (usize, usize, Duration),
) {
    let deadline = tokio::time::Instant::now() + time;
    let mut bytes: usize = set.iter().map(|finished| finished.bytes).sum();
    while set.len() < most && bytes < most_bytes {
        let before = set.len();
        let more = receiver.recv_many(set, most - before);
        match tokio::time::timeout_at(deadline, more).await {
            Ok(n) if n > 0 => bytes += set[before..].iter().map(|f| f.bytes).sum::<usize>(),
            _ => return,
        }
    }
}
