//! Batches that stand still. Of messages that bring several members it is only known how few can be on the
//! bus, so that a lost one may hide behind others. What is lost shows by its batch, which does not go on
//! although its queue does.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use tasker_bus::ConsumerLoad;
use tasker_config::Settings;
use tasker_guards::{Guard, guard_is_off};
use tasker_messages::BatchId;
use tasker_store::{BundledBatch, Dispatched, StoreError};

use super::cut::{Cut, named_within};
use super::queues::{self, Key};
use crate::orchestrator::heartbeats::recorded_within;
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
    /// named by whoever holds it: somebody who is alive, or has vanished so long ago that the rows say so.
    fn is_due(&self, patience: &Patience, now: Instant) -> bool {
        let Patience { confirm, heartbeat, recorded } = *patience;
        let confirm = confirm * 2_u32.pow(self.looked.min(MOST_DOUBLED));
        let cut = self.cut.as_ref();
        let named = cut.is_some_and(|cut| cut.all_are_named(heartbeat, recorded, now));
        named && self.stands_since(now) >= confirm
    }

    fn stands_since(&self, now: Instant) -> Duration {
        now.duration_since(self.since)
    }

    /// What nobody holds of it is sent again now.
    fn suspected(&mut self, now: Instant) {
        (self.since, self.cut, self.looked) = (now, None, self.looked + 1);
    }
}

/// How long nobody suspects anything.
#[derive(Clone, Copy)]
struct Patience {
    confirm: Duration,
    heartbeat: Duration,
    /// How old the row of a worker that is alive is.
    recorded: Duration,
}

impl Patience {
    fn new(settings: &Settings) -> Self {
        Self {
            confirm: settings.reconciler.confirm(),
            heartbeat: settings.worker.heartbeat(),
            recorded: recorded_within(&settings.worker),
        }
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
    let patience = Patience::new(&node.settings);
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
        if still.is_due(&patience, now) {
            due.push(batch.id);
        }
        after.insert(batch.id, still);
    }
    let after = stills.entry(key).insert_entry(after).into_mut();
    let silent = silent_and_still_waited_for(&node.settings);
    if !due.is_empty() && node.store.has_vanished_workers(&queue.namespace, silent.clone()).await? {
        // What they held comes back by itself. They may also vanish again and again.
        due.retain(|batch| after[batch].stands_since(now) >= 2 * silent.end);
    }
    if due.is_empty() {
        return Ok(());
    }
    for batch in &due {
        after.entry(*batch).and_modify(|still| still.suspected(now));
    }
    let (place, settings) = ((&queue.namespace, &queue.queue), &node.settings.reconciler);
    let most = settings.max_redispatch;
    let lost = node.store.find_lost(place, Some(&due), settings.interval_ms, most).await?;
    queues::send_again(node, queue, &lost.steps).await
}

/// How old the row of a worker is that has vanished, while nats-server still waits for it to acknowledge what
/// it held, or whoever gets that next has not named it. One that has drained is taken to hold nothing.
fn silent_and_still_waited_for(settings: &Settings) -> Range<Duration> {
    let silent = recorded_within(&settings.worker);
    silent..silent + settings.streams.ack_wait() + named_within(settings.worker.heartbeat())
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

    const PATIENCE: Patience = Patience {
        confirm: Duration::from_secs(8),
        heartbeat: Duration::from_secs(1),
        recorded: Duration::from_secs(2),
    };

    #[test]
    fn a_batch_is_due_when_what_it_sent_was_delivered_and_nobody_named_it() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let batch = BundledBatch { id: BatchId::from_uuid(Uuid::nil()), published: 32, ended: 16 };
        let mut still = Still::new(batch, begun);
        assert!(!still.is_due(&PATIENCE, at(60)), "nobody knows what was delivered");
        let mut cut = Cut::new(1, Default::default(), &load(9, 40), 70);
        cut.note(&load(9, 60), at(8));
        still.cut = Some(cut.clone());
        assert!(!still.is_due(&PATIENCE, at(60)), "it waits");
        cut.note(&load(9, 70), at(10));
        still.cut = Some(cut.clone());
        let due = |still: &Still, seconds| still.is_due(&PATIENCE, at(seconds));
        assert!(!due(&still, 14) && due(&still, 15), "two signs of life, and a row, later");
        still.since = at(10);
        assert!(!due(&still, 17) && due(&still, 18), "when it has stood still for long enough");
        assert_eq!(still.stands_since(at(18)), Duration::from_secs(8));
        still.suspected(at(18));
        assert!(!due(&still, 90), "what it has sent since is not known");
        (still.since, still.cut, still.looked) = (at(10), Some(cut), 2);
        assert!(!due(&still, 41) && due(&still, 42), "in vain twice");
        still.looked = 90;
        assert!(due(&still, 10 + 8 * 64));
    }

    #[test]
    fn what_a_worker_held_is_waited_for_until_somebody_else_has_named_it() {
        let loader = tasker_config::Loader::new().expect("the defaults are valid");
        let settings = loader.load().expect("the defaults are valid").settings;
        let silent = silent_and_still_waited_for(&settings);
        // A row every 5 s, a beat every 2; 15 s until its messages come again, and two beats.
        assert_eq!(silent, Duration::from_millis(7_500)..Duration::from_millis(27_000));
    }
}
