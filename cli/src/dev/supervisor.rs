use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::board::{Board, Slot};
use super::child::{self, Program};
use super::data_dir::DataDir;

/// Which children are to end, and how long after the request to stop.
type Stop = (fn(Slot) -> bool, Duration);

/// Those that need others end before them. What is left at its time is killed; all of it stays
/// below 20 s.
const STOPS: [Stop; 4] = [
    (|slot| matches!(slot, Slot::Worker(_)), Duration::from_secs(11)),
    (|slot| matches!(slot, Slot::Orchestrator(_)), Duration::from_secs(14)),
    (|slot| matches!(slot, Slot::Nats), Duration::from_secs(16)),
    (|slot| matches!(slot, Slot::Postgres), Duration::from_secs(18)),
];

/// All children of `dev`.
#[derive(Debug)]
pub(super) struct Supervisor {
    board: Arc<Board>,
    children: Vec<Supervised>,
    longest_backoff: Duration,
}

#[derive(Debug)]
struct Supervised {
    slot: Slot,
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// A child that dies again and again is started again after this long at most.
    pub(super) fn new(data: &DataDir, longest_backoff: Duration) -> Self {
        let board = Arc::new(Board::new(data.path().to_owned()));
        Self { board, children: Vec::new(), longest_backoff }
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// Starts a child and keeps it running.
    pub(super) fn start(&mut self, program: Program) {
        let (stop, stopped) = watch::channel(None);
        let slot = program.slot;
        let board = Arc::clone(&self.board);
        let task = tokio::spawn(child::supervise(program, board, stopped, self.longest_backoff));
        self.children.push(Supervised { slot, stop, task });
    }

    /// Stops all children: workers drain while orchestrators still take their outcomes, those drain
    /// while the bus and the database are there.
    pub(super) async fn stop_all(self) {
        let begun = Instant::now();
        let mut children = self.children;
        for (wanted, time) in STOPS {
            let deadline = begun + time;
            let (group, rest) = children.into_iter().partition(|child| wanted(child.slot));
            children = rest;
            let group: Vec<Supervised> = group;
            for child in &group {
                child.stop.send_replace(Some(deadline));
            }
            for child in group {
                // A panic of the supervision has been printed; the others are still to be stopped.
                let _panicked = child.task.await;
            }
        }
    }
}
