//! Hands ready steps to the workers that ended their parents, in the answers to their reports: no
//! publish, no delivery and no read between two steps of a chain. The steps are leased. If an answer
//! is lost, or the worker dies, the sweep for unpublished steps finds them when the lease ends.

use std::collections::HashMap;

use tasker_messages::{StepId, WorkItem};
use tasker_store::Applied;

use super::dispatch::{complete, work_item};
use super::node::Node;

/// The work items of steps that are leased to workers, by the parents that they follow. Steps whose
/// shared part cannot be read now are published like any other.
pub(crate) async fn hand_over(node: &Node, applied: &mut Applied) -> HashMap<StepId, WorkItem> {
    let handed = std::mem::take(&mut applied.handed);
    if handed.is_empty() {
        return HashMap::new();
    }
    let steps = handed.iter().map(|(_, step)| step.clone()).collect();
    let prepared = complete(node, steps, &applied.results, false).await;
    let mut prepared: HashMap<StepId, _> = prepared.into_iter().map(|p| (p.step.id, p)).collect();
    let mut items = HashMap::with_capacity(handed.len());
    for (parent, step) in handed {
        let Some(prepared) = prepared.remove(&step.id) else {
            applied.ready.push(step);
            continue;
        };
        // The child takes its parent's place among the outstanding steps of the queue.
        if let Some(finished) = applied.finished_by_queue.get_mut(&step.queue) {
            finished.steps = finished.steps.saturating_sub(1);
        }
        items.insert(parent, work_item(node, &prepared));
    }
    metrics::counter!("tasker_outcomes_handed_steps_total").increment(items.len() as u64);
    items
}
