//! Reports finished attempts. Fed by the outbox; emits reports and, after their verdicts,
//! acknowledgements. What is lost when it dies: nothing; the outbox outlives it, and reports in
//! flight are tasks of their own.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Receiver;

use super::core::Core;
use super::outbox::{Finished, Gathered};
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
///
/// It may end at any await: whatever it has is in the outbox then, and nowhere else.
async fn gather(core: Arc<Core>) {
    let settings = &core.settings.worker;
    let most = settings.gather_max as usize;
    let mut gathered = core.outbox.gathered.lock().await;
    let Gathered { receiver, set, reports } = &mut *gathered;
    loop {
        let unanswered = acquire(&core).await;
        if reports.is_empty() {
            if set.is_empty() && receiver.recv_many(set, most).await == 0 {
                return;
            }
            let limits = (most, settings.gather_bytes);
            let long_enough = async {
                tokio::select! {
                    biased;
                    () = all_others_answered(&core) => {}
                    () = tokio::time::sleep(settings.gather()) => {}
                }
            };
            gather_more(receiver, set, limits, long_enough).await;
            reports.extend(Report::sort(set.drain(..), settings.gather_bytes));
        }
        if let Some(report) = reports.pop_front() {
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

/// Returns when no report is without an answer but the one that is being gathered.
async fn all_others_answered(core: &Core) {
    let others = core.settings.worker.max_unanswered - 1;
    // The semaphore is never closed, and nobody else waits for its permits meanwhile.
    drop(core.outbox.unanswered.acquire_many(others).await);
}

/// Adds to a set until it is large enough or has waited long enough.
async fn gather_more(
    receiver: &mut Receiver<Finished>,
    set: &mut Vec<Finished>,
    (most, most_bytes): (usize, usize),
    long_enough: impl Future<Output = ()>,
) {
    let mut long_enough = pin!(long_enough);
    let mut bytes: usize = set.iter().map(|finished| finished.bytes).sum();
    while set.len() < most && bytes < most_bytes {
        let before = set.len();
        tokio::select! {
            biased;
            () = &mut long_enough => return,
            n = receiver.recv_many(set, most - before) => if n == 0 { return },
        }
        bytes += set[before..].iter().map(|finished| finished.bytes).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use tasker_messages::{AttemptFinished, StepKind};
    use tasker_sdk::StepError;
    use tokio::task::{JoinHandle, yield_now};

    use super::super::fixture;
    use super::super::judge::failed;
    use super::*;

    async fn finish(core: &Arc<Core>, step: u128) {
        let item = fixture::item(step);
        let attempt = AttemptFinished {
            step_id: item.step_id,
            attempt: item.attempt,
            dispatch_seq: item.dispatch_seq,
            kind: StepKind::Standard,
            has_schema: false,
            has_events: false,
            execution_ms: 1,
            outcome: failed(StepError::permanent("FAILED", "on purpose")),
        };
        let (place, hold) = (fixture::place(core), fixture::hold(core, step));
        core.outbox.push(attempt, place, item.node, hold).await;
    }

    /// A gatherer that has taken in all there is, ended at what it waits for.
    async fn end(core: &Core, gatherer: JoinHandle<()>) -> (usize, usize) {
        while core.outbox.ungathered() > 0 {
            yield_now().await;
        }
        gatherer.abort();
        assert!(gatherer.await.is_err_and(|error| error.is_cancelled()));
        let gathered = core.outbox.gathered.lock().await;
        (gathered.set.len(), gathered.reports.len())
    }

    #[tokio::test]
    async fn what_was_gathered_outlives_the_gatherer() {
        let core = fixture::core(|worker| {
            (worker.max_unanswered, worker.gather_ms) = (2, 60_000);
        })
        .await;
        // A report is on its way: others gather.
        let unanswered = acquire(&core).await;
        let gatherer = tokio::spawn(gather(Arc::clone(&core)));
        finish(&core, 1).await;
        assert_eq!(end(&core, gatherer).await, (1, 0));
        // Two that do not fit into one report: the second one waits until the first is answered.
        drop(unanswered);
        let core = fixture::core(|worker| {
            (worker.max_unanswered, worker.gather_bytes) = (1, 200);
        })
        .await;
        finish(&core, 1).await;
        finish(&core, 2).await;
        let gatherer = tokio::spawn(gather(Arc::clone(&core)));
        assert_eq!(end(&core, gatherer).await, (0, 1));
    }

    #[tokio::test]
    async fn gathering_ends_when_nothing_is_being_reported() {
        let core = fixture::core(|worker| {
            (worker.max_unanswered, worker.gather_ms) = (2, 60_000);
        })
        .await;
        let unanswered = acquire(&core).await;
        finish(&core, 1).await;
        let mut gatherer = Box::pin(gather(Arc::clone(&core)));
        // As far as it can go: it waits for more.
        assert!(poll_once(&mut gatherer).await.is_none());
        assert_eq!(core.outbox.ungathered(), 0);
        drop(unanswered);
        assert!(poll_once(&mut gatherer).await.is_none());
        drop(gatherer);
        let gathered = core.outbox.gathered.lock().await;
        assert_eq!((gathered.set.len(), gathered.reports.len()), (0, 0));
    }

    async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        tokio::select! {
            biased;
            value = future => Some(value),
            () = async {} => None,
        }
    }
}
