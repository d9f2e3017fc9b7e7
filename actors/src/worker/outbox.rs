use std::collections::VecDeque;
use std::sync::Arc;

use tasker_config::WorkerSettings;
use tasker_messages::{AttemptFinished, AttemptOutcome, NodeId};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};

use super::held::Hold;
use super::place::Place;
use super::report::Report;

/// An outcome on its way to the orchestrator.
pub(crate) struct Finished {
    pub(crate) attempt: AttemptFinished,
    pub(crate) place: Arc<Place>,
    pub(crate) node: NodeId,
    pub(crate) hold: Hold,
    pub(crate) bytes: usize,
    /// Room in memory, given back with the verdict.
    pub(crate) room: OwnedSemaphorePermit,
}

/// Outcomes on their way into reports.
pub(crate) struct Gathered {
    pub(crate) receiver: mpsc::Receiver<Finished>,
    /// Taken in, to become reports together.
    pub(crate) set: Vec<Finished>,
    /// Made, and not sent yet.
    pub(crate) reports: VecDeque<Report>,
}

/// Outcomes that wait to be reported. Bounded in number and bytes: when it is full, finished steps
/// keep their slots, so that nothing more is pulled.
///
/// Both ends live as long as the worker, so that nothing is lost with an actor.
pub(crate) struct Outbox {
    sender: mpsc::Sender<Finished>,
    /// Whoever gathers holds it; what it has gathered is the next one's.
    pub(crate) gathered: Mutex<Gathered>,
    room: Arc<Semaphore>,
    capacity: u32,
    /// One permit per report without an answer.
    pub(crate) unanswered: Arc<Semaphore>,
}

impl Outbox {
    pub(crate) fn new(settings: &WorkerSettings) -> Self {
        let (sender, receiver) = mpsc::channel(settings.gather_max as usize);
        // As much as is being reported, and as much again as the next report.
        let capacity = settings.gather_bytes.saturating_mul(settings.max_unanswered as usize + 1);
        let capacity =
            u32::try_from(capacity).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32);
        Self {
            sender,
            gathered: Mutex::new(Gathered { receiver, set: Vec::new(), reports: VecDeque::new() }),
            room: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
            unanswered: Arc::new(Semaphore::new(settings.max_unanswered as usize)),
        }
    }

    /// Outcomes that nobody has gathered yet.
    #[cfg(test)]
    pub(crate) fn ungathered(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// Hands an outcome over; waits while there is no room, with the slot still booked.
    pub(crate) async fn push(
        &self,
        attempt: AttemptFinished,
        place: Arc<Place>,
        node: NodeId,
        hold: Hold,
    ) {
        let bytes = size_of_report(&attempt.outcome);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.capacity);
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(permits).await else { return };
        let Ok(place_in_queue) = self.sender.reserve().await else { return };
        let mut hold = hold;
        // Freed first: the next delivery may be on its way while this one is reported.
        hold.leave_slot();
        place_in_queue.send(Finished { attempt, place, node, hold, bytes, room });
    }
}

/// About how many bytes an outcome takes in a report.
fn size_of_report(outcome: &AttemptOutcome) -> usize {
    const FIXED: usize = 128;
    FIXED
        + match outcome {
            AttemptOutcome::Succeeded(result) => result.get().len(),
            AttemptOutcome::Failed(failure) => {
                let context =
                    if failure.context.is_null() { 0 } else { failure.context.to_string().len() };
                failure.message.len() + failure.code.len() + context
            }
        }
}
