//! Resident memory of the cluster's processes while a benchmark runs.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
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
    looking: tokio::task::JoinHandle<()>,
}

/// Reading the proportional memory of Postgres walks the page tables of all of its processes: more
/// often would be felt in the figures.
const EVERY: Duration = Duration::from_secs(1);

impl Resident {
    pub(super) fn watch(pids: &Pids) -> Self {
        let peaks = Arc::new(Mutex::new(Peaks::default()));
        let (pids, shared) = (pids.clone(), Arc::clone(&peaks));
        let looking = tokio::spawn(async move {
            loop {
                let now = look(&pids);
                shared.lock().unwrap_or_else(PoisonError::into_inner).raise(now);
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { peaks, looking }
    }

    pub(super) fn peaks(&self) -> Peaks {
        *self.peaks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.looking.abort();
    }
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

fn look(pids: &Pids) -> Peaks {
    let largest = |pids: &[i32]| pids.iter().filter_map(|&pid| resident_mib(pid)).reduce(f64::max);
    Peaks {
        orchestrator: largest(&pids.orchestrators),
        worker: largest(&pids.workers),
        nats: pids.nats.and_then(resident_mib),
        postgres: pids.postgres.and_then(proportional_mib),
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
