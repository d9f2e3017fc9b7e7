//! Resident memory of the cluster's processes while a benchmark runs.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::dev::Pids;

/// The highest resident memory of each kind of process, in MiB; of several processes the largest.
/// Postgres is the sum of its processes, shared memory counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Peaks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) orchestrator: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) worker: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nats: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) postgres: Option<f64>,
}

/// Looks at the processes until it is dropped.
pub(super) struct Resident {
    peaks: Arc<Mutex<Peaks>>,
    pids: Pids,
    /// Closed when there is nothing more to look at.
    _looks: mpsc::Sender<()>,
}

const EVERY: Duration = Duration::from_secs(1);
/// Reading the proportional memory of Postgres walks the page tables of all of its processes, which takes tens
/// of milliseconds of a core: one look of so many, or it would be felt in the figures.
const POSTGRES_EVERY: u32 = 5;

impl Resident {
    /// Looks from a thread of its own, so that whoever measures does not wait meanwhile.
    pub(super) fn watch(pids: &Pids) -> Self {
        let peaks = Arc::new(Mutex::new(Peaks::default()));
        let (looks, ended) = mpsc::channel();
        let (watched, shared) = (pids.clone(), Arc::clone(&peaks));
        thread::spawn(move || {
            for n in 0_u32.. {
                raise(&shared, look(&watched, n.is_multiple_of(POSTGRES_EVERY)));
                if ended.recv_timeout(EVERY) != Err(mpsc::RecvTimeoutError::Timeout) {
                    break;
                }
            }
        });
        Self { peaks, pids: pids.clone(), _looks: looks }
    }

    /// The peaks so far, with a last look.
    pub(super) fn peaks(&self) -> Peaks {
        raise(&self.peaks, look(&self.pids, true));
        *self.peaks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raise(peaks: &Mutex<Peaks>, now: Peaks) {
    peaks.lock().unwrap_or_else(PoisonError::into_inner).raise(now);
}

impl Peaks {
    fn raise(&mut self, now: Peaks) {
        let higher = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        self.orchestrator = higher(self.orchestrator, now.orchestrator);
        self.worker = higher(self.worker, now.worker);
        self.nats = higher(self.nats, now.nats);
        self.postgres = higher(self.postgres, now.postgres);
    }
}

fn look(pids: &Pids, with_postgres: bool) -> Peaks {
    let largest = |pids: &[i32]| pids.iter().filter_map(|&pid| resident_mib(pid)).reduce(f64::max);
    Peaks {
        orchestrator: largest(&pids.orchestrators),
        worker: largest(&pids.workers),
        nats: pids.nats.and_then(resident_mib),
        postgres: pids.postgres.filter(|_| with_postgres).and_then(proportional_mib),
    }
}

fn resident_mib(pid: i32) -> Option<f64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:").map(|kib| kib / 1024.0)
}

/// Memory of a process and its children, shared pages divided among those that share them.
fn proportional_mib(parent: i32) -> Option<f64> {
    let pss =
        |pid: i32| kib(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:");
    let all: Vec<f64> = with_children(parent).into_iter().filter_map(pss).collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / 1024.0)
}

/// A process and its children.
pub(super) fn with_children(parent: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children = children.unwrap_or_default();
    let mut pids = vec![parent];
    pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    pids
}

fn kib(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_resident() {
        let own = std::process::id() as i32;
        assert!(resident_mib(own).is_some_and(|mib| mib > 1.0));
        assert!(proportional_mib(own).is_some_and(|mib| mib > 0.5));
        assert_eq!(resident_mib(i32::MAX), None);
    }
}
