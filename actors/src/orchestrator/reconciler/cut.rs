//! What was lost with a connection. When the server is killed, acknowledgements are lost as well as messages,
//! and until the time of their deliveries is over each hides a lost message in the count of the consumer.
//! Meanwhile what is lost is told by what nobody holds.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tasker_bus::ConsumerLoad;
use tasker_guards::{Guard, guard_is_off};
use tasker_messages::StepId;
use tasker_store::{Dispatched, StoreError};

use super::queues::{self, Key};
use crate::orchestrator::heartbeats::GRACE;
use crate::orchestrator::node::Node;

/// By queue, what was seen since the last connection was made.
pub(super) type Cuts = HashMap<Key, Cut>;

/// Steps that nobody held when a connection had taken the place of another one.
#[derive(Clone)]
pub(super) struct Cut {
    /// The connection.
    epoch: u64,
    /// Empty once it has been found out which of them are lost.
    steps: HashSet<StepId>,
    /// Those that are not lost are in the stream up to here; `None` if it is not known.
    upto: Option<u64>,
    /// Since when the consumer has delivered all of them.
    delivered: Option<Instant>,
}

impl Cut {
    pub(super) fn new(
        epoch: u64,
        steps: HashSet<StepId>,
        load: &ConsumerLoad,
        last_sequence: u64,
    ) -> Self {
        // A server that has lost the end of its stream, but not what the consumer had delivered of it, says
        // of messages that are still to be stored that they are delivered.
        let upto = (load.delivered_stream_seq <= last_sequence).then_some(last_sequence);
        Self { epoch, steps, upto, delivered: None }
    }

    /// Whether it was made on this connection.
    pub(super) fn is_of(&self, epoch: u64) -> bool {
        self.epoch == epoch
    }

    /// Takes note of what the consumer says now.
    pub(super) fn note(&mut self, load: &ConsumerLoad, now: Instant) {
        let all =
            load.pending == 0 || self.upto.is_some_and(|upto| load.delivered_stream_seq >= upto);
        if all && self.delivered.is_none() {
            self.delivered = Some(now);
        }
    }

    /// Whether each worker that lived for `beyond` after that has named what it holds.
    pub(super) fn all_are_named(
        &self,
        heartbeat: Duration,
        beyond: Duration,
        now: Instant,
    ) -> bool {
        let named = named_within(heartbeat) + beyond;
        self.delivered.is_some_and(|at| now.duration_since(at) >= named)
    }
}

/// How soon a worker names what was delivered to it: the first sign of life may come too early.
pub(super) fn named_within(heartbeat: Duration) -> Duration {
    2 * heartbeat + GRACE
}

/// Looks after the steps of a queue that nobody holds, and sends those again that are lost: once for each
/// connection. `load` was said on the connection of that number.
pub(super) async fn check(
    node: &Node,
    queue: &Dispatched,
    (epoch, load): (u64, &ConsumerLoad),
    cuts: &mut Cuts,
) -> Result<(), StoreError> {
    let is_now = node.bus.connection().borrow().epoch == epoch;
    if !is_now || !node.acks_were_lost() || guard_is_off(Guard::Reconciler) {
        return Ok(());
    }
    let key = (queue.namespace.clone(), queue.queue.clone());
    let Some(cut) = cuts.get_mut(&key).filter(|cut| cut.epoch == epoch) else {
        cuts.extend(begin(node, queue, load, epoch).await?.map(|cut| (key, cut)));
        return Ok(());
    };
    let now = Instant::now();
    cut.note(load, now);
    if !cut.steps.is_empty()
        && cut.all_are_named(node.settings.worker.heartbeat(), Duration::ZERO, now)
    {
        let unheld = unheld(node, queue).await?;
        let mut lost: Vec<StepId> = cut.steps.intersection(&unheld).copied().collect();
        lost.sort_unstable();
        queues::send_again(node, queue, &lost).await?;
        cut.steps.clear();
    }
    Ok(())
}

async fn begin(
    node: &Node,
    queue: &Dispatched,
    load: &ConsumerLoad,
    epoch: u64,
) -> Result<Option<Cut>, StoreError> {
    // The messages of these are in the stream before its end is asked for, or nowhere. What the consumer has
    // said is older than both: only the next look tells whether they wait.
    let steps = unheld(node, queue).await?;
    let Ok(Some(stream)) = node.bus.stream_epoch().await else { return Ok(None) };
    Ok(Some(Cut::new(epoch, steps, load, stream.last_sequence)))
}

async fn unheld(node: &Node, queue: &Dispatched) -> Result<HashSet<StepId>, StoreError> {
    let most = node.settings.reconciler.max_redispatch;
    let found = node.store.find_lost((&queue.namespace, &queue.queue), None, 0, most).await?;
    Ok(found.steps.into_iter().collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(1);

    pub(in super::super) fn load(pending: u64, delivered_stream_seq: u64) -> ConsumerLoad {
        ConsumerLoad {
            created_unix_nanos: 0,
            age: Duration::ZERO,
            pending,
            ack_pending: 300,
            ack_floor_stream_seq: 0,
            delivered_stream_seq,
            max_ack_pending: 8_192,
            paused_for: None,
        }
    }

    /// How many seconds after the connection each worker has named what it holds, where the consumer says
    /// this each second: (pending, delivered).
    fn named_after(last_sequence: u64, said: &[(u64, u64)]) -> Option<usize> {
        let begun = Instant::now();
        let mut loads =
            said.iter().map(|(pending, delivered)| load(*pending, *delivered)).enumerate();
        let (_, first) = loads.next()?;
        let mut cut = Cut::new(2, HashSet::new(), &first, last_sequence);
        loads
            .find(|(second, load)| {
                let now = begun + Duration::from_secs(*second as u64);
                cut.note(load, now);
                cut.all_are_named(HEARTBEAT, Duration::ZERO, now)
            })
            .map(|(second, _)| second)
    }

    #[test]
    fn what_was_delivered_is_held_two_signs_of_life_later() {
        // Nothing waited before it was looked which steps there are; whether these wait says the next look.
        assert_eq!(named_after(70, &[(0, 70), (9, 70), (9, 80), (9, 90), (9, 90)]), Some(4));
        assert_eq!(named_after(75, &[(0, 70), (9, 70), (9, 70), (9, 75), (9, 90)]), None);
        // What waited then has been delivered after two seconds, whatever waits since.
        let said = [(20, 50), (30, 60), (30, 70), (30, 80), (30, 90), (30, 99), (30, 99)];
        assert_eq!(named_after(70, &said), Some(5));
        assert_eq!(named_after(70, &said[..5]), None);
        // It is still to be delivered.
        assert_eq!(named_after(1_000, &said), None);
    }

    #[test]
    fn a_consumer_that_is_ahead_of_its_stream_has_not_delivered_what_waits() {
        let mut said = vec![(20, 900); 9];
        assert_eq!(named_after(70, &said), None);
        said[4] = (0, 900);
        assert_eq!(named_after(70, &said), Some(7));
    }
}
