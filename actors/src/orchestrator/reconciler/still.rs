//! Batches that stand still. Of messages that bring several members it is only known how few can be on the
//! bus, so that a lost one may hide behind others. What is lost shows by its batch, which does not go on
//! although its queue does.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tasker_bus::ConsumerLoad;
use tasker_guards::{Guard, guard_is_off};
use tasker_messages::BatchId;
use tasker_store::{BundledBatch, Dispatched, StoreError};

use super::cut::Cut;
use super::queues::{self, Key};
use crate::orchestrator::node::Node;

/// By queue, how far its open batches with bundles were.
pub(super) type Stills = HashMap<Key, HashMap<BatchId, Still>>;

/// Batches of a queue that are looked at, the oldest first.
const MAX_BATCHES: u32 = 1_024;
/// Whoever was suspected in vain is looked at again after twice as long, up to so many times: its members
/// may take long.
const MOST_DOUBLED: u32 = 6;

/// A batch that has not moved since.
#[derive(Clone)]
pub(super) struct Still {
    batch: BundledBatch,
    since: Instant,
    /// What of it had been sent by the second look, and whether that has been delivered.
    cut: Option<Cut>,
    looked: u32,
}

impl Still {
    fn new(batch: BundledBatch, now: Instant) -> Self {
        Self { batch, since: now, cut: None, looked: 0 }
    }

    /// Whether it has stood still for so long, and all that it has sent was delivered, and would have been
    /// named by whoever holds it.
    fn is_due(&self, confirm: Duration, heartbeat: Duration, now: Instant) -> bool {
        let patience = confirm * 2_u32.pow(self.looked.min(MOST_DOUBLED));
        let named = self.cut.as_ref().is_some_and(|cut| cut.all_are_named(heartbeat, now));
        named && now.duration_since(self.since) >= patience
    }
}

/// Looks after the batches of a queue, and sends those of their members again that nobody holds. `load` was
/// said on the connection of that number.
pub(super) async fn check(
    node: &Node,
    queue: &Dispatched,
    (epoch, load): (u64, &ConsumerLoad),
    stills: &mut Stills,
) -> Result<(), StoreError> {
    let key = (queue.namespace.clone(), queue.queue.clone());
    if queue.bundled <= 1 || guard_is_off(Guard::Reconciler) {
        stills.remove(&key);
        return Ok(());
    }
    let batches = node.store.bundled_batches(&key.0, &key.1, MAX_BATCHES).await?;
    let mut before = stills.remove(&key).unwrap_or_default();
    let (confirm, heartbeat) =
        (node.settings.reconciler.confirm(), node.settings.worker.heartbeat());
    let (mut after, mut due, now) = (HashMap::new(), Vec::new(), Instant::now());
    // Asked once for all of them, and only if one has stood still.
    let mut asked = None;
    for batch in batches {
        let mut still = match before.remove(&batch.id).filter(|still| still.batch == batch) {
            Some(still) => still,
            None => {
                after.insert(batch.id, Still::new(batch, now));
                continue;
            }
        };
        match still.cut.as_mut().filter(|cut| cut.is_of(epoch)) {
            Some(cut) => cut.note(load, now),
            None => {
                if asked.is_none() {
                    asked = Some(cut_now(node, epoch, load).await);
                }
                still.cut = asked.clone().flatten();
            }
        }
        if still.is_due(confirm, heartbeat, now) {
            due.push(batch.id);
            (still.since, still.cut, still.looked) = (now, None, still.looked + 1);
        }
        after.insert(batch.id, still);
    }
    stills.insert(key, after);
    if due.is_empty() {
        return Ok(());
    }
    let (place, settings) = ((&queue.namespace, &queue.queue), &node.settings.reconciler);
    let most = settings.max_redispatch;
    let lost = node.store.find_lost(place, Some(&due), settings.interval_ms, most).await?;
    queues::send_again(node, queue, &lost.steps).await
}

/// What is on the stream now; `None` if nobody says: whoever cannot ask does not suspect.
async fn cut_now(node: &Node, epoch: u64, load: &ConsumerLoad) -> Option<Cut> {
    let stream = node.bus.stream_epoch().await.ok().flatten()?;
    Some(Cut::new(epoch, Default::default(), load, stream.last_sequence))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::cut::tests::load;
    use super::*;

    const CONFIRM: Duration = Duration::from_secs(8);
    const HEARTBEAT: Duration = Duration::from_secs(1);

    #[test]
    fn a_batch_is_due_when_what_it_sent_was_delivered_and_nobody_named_it() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let batch = BundledBatch { id: BatchId::from_uuid(Uuid::nil()), published: 32, ended: 16 };
        let mut still = Still::new(batch, begun);
        assert!(!still.is_due(CONFIRM, HEARTBEAT, at(60)), "nobody knows what was delivered");
        let mut cut = Cut::new(1, Default::default(), &load(9, 40), 70);
        cut.note(&load(9, 60), at(8));
        still.cut = Some(cut.clone());
        assert!(!still.is_due(CONFIRM, HEARTBEAT, at(60)), "it waits");
        cut.note(&load(9, 70), at(10));
        still.cut = Some(cut);
        let due = |still: &Still, seconds| still.is_due(CONFIRM, HEARTBEAT, at(seconds));
        assert!(!due(&still, 12) && due(&still, 13), "two signs of life later");
        still.since = at(10);
        assert!(!due(&still, 17) && due(&still, 18), "when it has stood still for long enough");
        still.looked = 2;
        assert!(!due(&still, 41) && due(&still, 42), "in vain twice");
        still.looked = 90;
        assert!(due(&still, 10 + 8 * 64));
    }
}
