use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::state_file::{DevState, Pids};
use crate::output;

/// The place of a child in the cluster; its process changes with every restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Slot {
    Postgres,
    Nats,
    Orchestrator(u16),
    Worker(u16),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Postgres => f.write_str("postgres"),
            Slot::Nats => f.write_str("nats-server"),
            Slot::Orchestrator(n) => write!(f, "orchestrator-{n}"),
            Slot::Worker(n) => write!(f, "worker-{n}"),
        }
    }
}

/// Who runs, shared by the supervision of all children, and shown in `dev.json` while ready.
#[derive(Debug)]
pub(super) struct Board {
    data_dir: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pids: HashMap<Slot, i32>,
    deaths: HashMap<Slot, u32>,
    /// What `dev.json` says besides the pids; `None` while not ready.
    urls: Option<Urls>,
}

/// Where the cluster can be reached.
#[derive(Debug, Clone)]
pub(super) struct Urls {
    pub(super) http: String,
    pub(super) database: String,
    pub(super) nats: String,
    pub(super) nats_counters: Option<String>,
}

impl Board {
    pub(super) fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, inner: Mutex::default() }
    }

    pub(super) fn started(&self, slot: Slot, pid: i32) {
        let mut inner = self.inner();
        inner.pids.insert(slot, pid);
        self.publish(&inner);
    }

    /// Counts a death. The pid stays in `dev.json` until the restart, which is at hand.
    pub(super) fn died(&self, slot: Slot) {
        *self.inner().deaths.entry(slot).or_default() += 1;
    }

    pub(super) fn deaths(&self, slot: Slot) -> u32 {
        self.inner().deaths.get(&slot).copied().unwrap_or_default()
    }

    pub(super) fn pid(&self, slot: Slot) -> Option<i32> {
        self.inner().pids.get(&slot).copied()
    }

    /// The cluster is ready: writes `dev.json`, from now on at every restart.
    pub(super) fn open(&self, urls: Urls) -> DevState {
        let mut inner = self.inner();
        inner.urls = Some(urls.clone());
        self.publish(&inner);
        inner.state(&urls)
    }

    /// The cluster is about to stop: removes `dev.json` for good.
    pub(super) fn close(&self) {
        let mut inner = self.inner();
        inner.urls = None;
        if let Err(error) = DevState::remove(&self.data_dir) {
            output::note(&format_args!("cannot remove dev.json: {error}"));
        }
    }

    fn publish(&self, inner: &Inner) {
        if let Some(urls) = &inner.urls
            && let Err(error) = inner.state(urls).write(&self.data_dir)
        {
            output::note(&format_args!("cannot write dev.json: {error}"));
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single step; a panic cannot have left half of one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn state(&self, urls: &Urls) -> DevState {
        let mut slots: Vec<_> = self.pids.iter().map(|(&slot, &pid)| (slot, pid)).collect();
        slots.sort_unstable();
        let all = |wanted: fn(&Slot) -> bool| {
            slots.iter().filter(|(slot, _)| wanted(slot)).map(|&(_, pid)| pid).collect()
        };
        let pids = Pids {
            dev: std::process::id().cast_signed(),
            postgres: self.pids.get(&Slot::Postgres).copied(),
            nats: self.pids.get(&Slot::Nats).copied(),
            orchestrators: all(|slot| matches!(slot, Slot::Orchestrator(_))),
            workers: all(|slot| matches!(slot, Slot::Worker(_))),
        };
        DevState {
            url: urls.http.clone(),
            database_url: urls.database.clone(),
            nats_url: urls.nats.clone(),
            nats_counters: urls.nats_counters.clone(),
            pids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_follows_restarts_while_ready() {
        let dir = std::env::temp_dir().join(format!("tasker-board-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&dir).expect("a temporary folder");
        let board = Board::new(dir.clone());
        board.started(Slot::Worker(2), 12);
        board.started(Slot::Worker(1), 11);
        board.started(Slot::Nats, 5);
        assert!(DevState::read(&dir).is_err(), "not ready yet");
        let text = || "x".to_owned();
        board.open(Urls { http: text(), database: text(), nats: text(), nats_counters: None });
        let pids = DevState::read(&dir).expect("ready").pids;
        assert_eq!((pids.workers, pids.nats, pids.postgres), (vec![11, 12], Some(5), None));
        board.died(Slot::Worker(1));
        board.started(Slot::Worker(1), 13);
        assert_eq!(board.deaths(Slot::Worker(1)), 1);
        assert_eq!(DevState::read(&dir).expect("ready").pids.workers, vec![13, 12]);
        board.close();
        board.started(Slot::Worker(1), 14);
        assert!(DevState::read(&dir).is_err(), "stopping");
        std::fs::remove_dir_all(&dir).expect("its removal");
    }
}
