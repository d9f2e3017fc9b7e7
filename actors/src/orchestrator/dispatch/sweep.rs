//! What a sweep looks for: ready steps that were not published, batches without a publisher, limits.

use std::time::{Duration, Instant};

use ractor::ActorRef;
use tasker_guards::{Guard, guard_is_off};
use tasker_messages::BatchId;
use tasker_store::OpenBatch;

use super::lane::LaneKey;
use super::{DispatchMessage, DispatchState, UNSENT_AFTER, publish};
use crate::orchestrator::limits;
use crate::orchestrator::node::{Node, run_detached};

/// Steps and batches that one sweep takes up.
const MAX_SWEPT: u32 = 4_096;
/// How often limits are looked at.
const LIMITS_EVERY: Duration = Duration::from_secs(5);
/// A batch is left to other nodes when its publisher has been silent for this long.
pub(crate) const PUBLISHER_LEASE: Duration = Duration::from_secs(5);

impl DispatchState {
    pub(super) fn sweep(&mut self, myself: &ActorRef<DispatchMessage>) {
        if let Some(number) = self.recording.sweep_begins(Instant::now()) {
            self.sweep_steps(myself, number);
        }
        let node = self.node.clone();
        let work = async move { DispatchMessage::Batches(claim_batches(&node, None).await) };
        run_detached(myself, work, || DispatchMessage::Batches(Vec::new()));
    }

    fn sweep_steps(&self, myself: &ActorRef<DispatchMessage>, number: u64) {
        let node = self.node.clone();
        let older_than = UNSENT_AFTER.as_millis() as u64;
        let work = async move {
            match node.store.replan_grown().await {
                Ok(true) => tracing::info!("tables have grown: statements are planned anew"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "how large the tables are is not known"),
            }
            let steps = match node.store.find_unsent(older_than, MAX_SWEPT).await {
                Ok(steps) if steps.is_empty() || guard_is_off(Guard::Sweep) => Vec::new(),
                Ok(steps) => publish::prepare(&node, &steps, true).await,
                Err(error) => {
                    tracing::warn!(%error, "unpublished steps could not be looked for");
                    Vec::new()
                }
            };
            DispatchMessage::Swept(number, steps)
        };
        run_detached(myself, work, move || DispatchMessage::Swept(number, Vec::new()));
    }

    /// Looks at the limits now and then. Limited queues have small windows, which other nodes fill,
    /// too: this one may not have heard of what has ended.
    pub(super) fn sweep_limits(&mut self, myself: &ActorRef<DispatchMessage>) {
        let known = &self.node.limits;
        let limited = self.lanes.iter_mut().filter(|((namespace, queue), lane)| {
            lane.waits() && known.max_running(namespace, queue).is_some()
        });
        let waiting: Vec<LaneKey> = limited
            .map(|(key, lane)| {
                lane.note_sweep();
                key.clone()
            })
            .collect();
        waiting.iter().for_each(|key| self.pump(myself, key));
        if self.limits_read.elapsed() < LIMITS_EVERY || self.node.limits.are_being_read() {
            return;
        }
        self.limits_read = Instant::now();
        let node = self.node.clone();
        let work = async move {
            let changed = limits::refresh(&node).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "limits could not be read; those that are known go on");
                Vec::new()
            });
            DispatchMessage::Limited(changed)
        };
        run_detached(myself, work, || DispatchMessage::Limited(Vec::new()));
    }
}

/// Takes over the publishing of batches. What cannot be had now is found by a later sweep.
pub(super) async fn claim_batches(node: &Node, named: Option<Vec<BatchId>>) -> Vec<OpenBatch> {
    let lease_ms = PUBLISHER_LEASE.as_millis() as u64;
    let claimed = node.store.claim_batches(named.as_deref(), node.id, lease_ms, MAX_SWEPT).await;
    claimed.unwrap_or_else(|error| {
        tracing::warn!(%error, "sealed batches could not be taken over; a sweep tries again");
        Vec::new()
    })
}
