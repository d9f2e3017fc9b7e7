//! Pulls one queue.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tasker_bus::{Delivery, PullEvent, PullOptions, Puller, ResetReason};
use tasker_guards::{Guard, guard_is_off};
use tasker_messages::{PROTOCOL_HEADER, WorkItem, code, json, subject};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::claims::{Asking, ClaimsMessage};
use super::core::{Core, Stage};
use super::execute::{Step, run_step};
use super::held::{Admitted, HeldSteps};
use super::ledger::{Ask, Here, Seat};
use super::message::Message;
use super::place::Place;
use super::retry::BackOff;

/// What a pull loop is told by the intake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Signal {
    /// The queue is served no more.
    pub(crate) stop: bool,
    /// Rises when queues have changed, so that a back-off is cut short.
    pub(crate) changes: u64,
}

/// How long little room is left unused, so that a request is made for more of it.
const SOON: Duration = Duration::from_millis(1);
/// How long a message of another protocol version is left to others.
const OTHER_VERSION: Duration = Duration::from_secs(5);

/// How long a request is valid that is made for what is known to wait. If others have had it meanwhile,
/// the slots are not kept from other queues for longer.
const FOR_BACKLOG: Duration = Duration::from_secs(1);

/// Without a request for so long, one does not hear of it when the consumer is deleted.
const UNHEARD: Duration = Duration::from_secs(1);

/// How long a queue that is left may take to deliver what was asked for.
const LAST_CREDIT: Duration = Duration::from_secs(1);
/// What has not come for so long is not on its way.
const QUIET: Duration = Duration::from_millis(100);

/// Which consumer delivers. One that was made anew, after somebody deleted it, delivers what others hold
/// as if for the first time.
#[derive(Default)]
struct Consumer {
    /// When it was made, by the server's clock, if that is known.
    created_unix_nanos: Option<i64>,
    /// The last delivery's place among all of them.
    last_sequence: u64,
    /// Since when nothing is asked for.
    silent_since: Option<Instant>,
}

impl Consumer {
    fn may_be_another(&self) -> bool {
        self.created_unix_nanos.is_none()
            || self.silent_since.is_some_and(|since| since.elapsed() >= UNHEARD)
    }

    /// Whether it has begun anew since the delivery before.
    fn follow(&mut self, delivery: &Delivery) -> bool {
        let before = std::mem::replace(&mut self.last_sequence, delivery.consumer_sequence);
        delivery.consumer_sequence <= before
    }
}

/// The loop of one queue. Dropped at whatever point, it gives back to the ledger what it has of it.
pub(crate) struct PullLoop {
    core: Arc<Core>,
    place: Arc<Place>,
    puller: Puller,
    signal: watch::Receiver<Signal>,
    stage: watch::Receiver<Stage>,
    freed: watch::Receiver<()>,
    /// The part of the ledger that is this loop's.
    here: Here,
    /// What was published up to this sequence may have been delivered before, whatever the server
    /// says: it may have forgotten deliveries when it was restarted.
    claim_up_to: u64,
    consumer: Consumer,
    back_off: BackOff,
}

const fn back_off() -> BackOff {
    BackOff::new(Duration::from_millis(500), Duration::from_secs(2))
}

impl PullLoop {
    pub(crate) fn new(
        core: &Arc<Core>,
        place: Arc<Place>,
        signal: watch::Receiver<Signal>,
    ) -> Self {
        core.ledger.add_queue();
        let puller = core.bus.pull(subject::WORK_STREAM, &place.durable, PullOptions::default());
        Self {
            puller,
            place,
            signal,
            stage: core.stage.subscribe(),
            freed: core.ledger.freed(),
            here: Here::default(),
            claim_up_to: 0,
            consumer: Consumer::default(),
            back_off: back_off(),
            core: Arc::clone(core),
        }
    }

    /// Pulls until the queue is not served any more or the worker drains.
    pub(crate) async fn run(mut self) {
        while !self.must_stop() {
            self.core.ledger.note_idle(&mut self.here);
            let soon = self.ask().await;
            let see_again = async {
                match soon {
                    true => sleep(SOON).await,
                    false => pending().await,
                }
            };
            tokio::select! {
                biased;
                event = self.puller.next() => self.follow(event).await,
                _ = self.freed.changed() => {}
                () = see_again => self.ask_for_little().await,
                _ = self.signal.changed() => {}
                _ = self.stage.changed() => {}
            }
        }
        self.close().await;
    }

    fn must_stop(&self) -> bool {
        self.signal.borrow().stop || *self.stage.borrow() >= Stage::Draining
    }

    /// Asks for what there is room for. Returns whether to see again soon.
    async fn ask(&mut self) -> bool {
        match self.core.ledger.ask(&self.here, false) {
            Ask::Request(n) => self.request(n).await,
            Ask::Soon => return true,
            Ask::Wait => {}
        }
        false
    }

    async fn ask_for_little(&mut self) {
        if let Ask::Request(n) = self.core.ledger.ask(&self.here, true) {
            self.request(n).await;
        }
    }

    async fn request(&mut self, n: u32) {
        let unsure = self.here.credit == 0 && self.consumer.may_be_another();
        self.here.credit += n;
        // At once: a queue that comes meanwhile is not to wait until something happens here.
        self.core.ledger.note_idle(&mut self.here);
        let requested = match self.here.backlog {
            0 => self.puller.request(n).await,
            _ => self.puller.request_for(n, FOR_BACKLOG).await,
        };
        if let Err(error) = requested {
            tracing::warn!(%error, durable = self.place.durable, "not pulled");
            self.pause().await;
        } else if unsure {
            // Asked after the request: if the consumer is deleted from now on, the request ends.
            self.look_at_consumer().await;
        }
        self.consumer.silent_since = None;
        self.balance();
    }

    /// Learns which consumer delivers. If it is another one than before, or nobody can tell, all that is
    /// on the stream is claimed before it runs.
    async fn look_at_consumer(&mut self) {
        let load = self.core.bus.consumer_load(&self.place.namespace, &self.place.queue).await;
        let known = self.consumer.created_unix_nanos;
        match load {
            Ok(Some(load)) => {
                self.consumer.created_unix_nanos = Some(load.created_unix_nanos);
                let is_another = match known {
                    Some(known) => known != load.created_unix_nanos,
                    // This loop is new: the server may have been restarted before, and have forgotten
                    // what it delivered to others. A consumer that was made a moment ago has not
                    // delivered anything before that moment.
                    None => load.age > self.core.settings.streams.ack_wait(),
                };
                if is_another || self.claim_up_to == u64::MAX {
                    self.look_at_stream().await;
                }
            }
            // The request is answered so as well.
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, durable = self.place.durable, "everything is claimed");
                self.consumer.created_unix_nanos = None;
                self.claim_up_to = u64::MAX;
            }
        }
    }

    /// Brings the ledger up to what the puller says.
    fn balance(&mut self) {
        let credit = self.puller.credit();
        let unused = self.here.credit.saturating_sub(credit);
        self.core.ledger.void(&self.here, unused);
        self.here.credit = self.here.credit.min(credit);
        self.note_silence();
    }

    fn note_silence(&mut self) {
        if self.here.credit == 0 && self.consumer.silent_since.is_none() {
            self.consumer.silent_since = Some(Instant::now());
        }
    }

    async fn follow(&mut self, event: PullEvent) {
        match event {
            PullEvent::Message(delivery) => {
                let seat = Seat::take(&self.core, &self.here);
                self.here.credit = self.here.credit.saturating_sub(1);
                self.note_silence();
                self.here.backlog = delivery.pending;
                self.back_off = back_off();
                if self.consumer.follow(&delivery) {
                    tracing::warn!(durable = self.place.durable, "the consumer was made anew");
                    self.consumer.created_unix_nanos = None;
                    self.look_at_stream().await;
                }
                self.take_in(delivery, seat).await;
            }
            PullEvent::CreditReturned(_) => {
                self.here.backlog = 0;
                self.balance();
                self.core.ledger.note_each(&mut self.here, 1);
            }
            PullEvent::Reset(reason) => {
                self.balance();
                self.consumer = Consumer::default();
                if reason != ResetReason::Reconnected {
                    self.pause().await;
                }
                self.look_at_stream().await;
            }
        }
    }

    /// Decides what is to be done with a delivery.
    async fn take_in(&mut self, delivery: Delivery, seat: Seat) {
        let core = &self.core;
        core.meters.deliveries.increment(1);
        let Some(item) = self.read(&delivery).await else { return };
        if item.limited {
            // What waits comes when others have ended, perhaps to another worker: slots are not kept
            // for it.
            self.here.backlog = 0;
        }
        core.ledger.note_each(&mut self.here, 1 + item.bundled.len() as u32);
        if core.cancelled.has_task(&self.place.namespace, &item) {
            drop(seat);
            return delivery.handle.ack().await;
        }
        let redelivered = delivery.num_delivered > 1;
        let must_claim = (redelivered && !guard_is_off(Guard::ClaimOnRedelivery))
            || item.claim_required
            || is_late(&item, &delivery)
            || delivery.doubtful
            || core.cancelled.has_batch(&self.place.namespace, &item)
            || delivery.stream_sequence <= self.claim_up_to
            || (self.consumer.created_unix_nanos)
                .is_some_and(|created| delivery.published_unix_nanos <= created);
        let steps = item.unbundle();
        let seats = seat.split(steps.len() as u32);
        let parts = Message::split(delivery.handle, steps.len());
        for ((item, seat), part) in steps.into_iter().zip(seats).zip(parts) {
            let way = must_claim.then_some(redelivered);
            self.take_in_step(item, seat, part, way).await;
        }
    }

    /// Decides what is to be done with a step. It is claimed if it says whether it came before.
    async fn take_in_step(
        &self,
        item: WorkItem,
        seat: Seat,
        message: Message,
        claimed: Option<bool>,
    ) {
        let core = &self.core;
        let admitted = HeldSteps::admit(core, &self.place, &item, Some(message), claimed.is_some());
        let hold = match admitted {
            Admitted::New(hold) => {
                seat.pass_on();
                hold
            }
            Admitted::Known(needless) => {
                drop(seat);
                if let Some(message) = needless {
                    message.ack().await;
                }
                return;
            }
        };
        if *self.stage.borrow() >= Stage::Draining {
            return hold.leave_behind();
        }
        let place = Arc::clone(&self.place);
        let step = Step { attempt: item.attempt, tries: item.tries, item, place, hold, slot: None };
        match claimed {
            Some(redelivered) => {
                core.claims.cast(ClaimsMessage::Claim(Box::new(Asking { step, redelivered })));
            }
            None => _ = tokio::spawn(run_step(step)),
        }
    }

    /// Reads a work item. One that cannot be read is dropped: rows say what is to be run, and the
    /// reconciler sends it again.
    async fn read(&self, delivery: &Delivery) -> Option<WorkItem> {
        let subject = delivery.subject();
        let sequence = delivery.stream_sequence;
        if delivery.header(PROTOCOL_HEADER).is_none() {
            // Of no version of Tasker, so that nobody could take it: whoever may ask JetStream something
            // may also have the answer sent here. Left to others, it would take up room for ever.
            self.core.meters.malformed.increment(1);
            tracing::error!(subject, sequence, "not a work item: it has no protocol version");
            delivery.handle.ack().await;
            return None;
        }
        if let Err(refusal) = delivery.protocol_ok() {
            tracing::error!(subject, sequence, %refusal, code = code::PROTOCOL_VERSION, "left to others");
            delivery.handle.nak(OTHER_VERSION).await;
            return None;
        }
        match json::decode(&delivery.payload) {
            Ok(item) => Some(item),
            Err(problem) => {
                self.core.meters.malformed.increment(1);
                tracing::error!(subject, sequence, %problem, "a work item cannot be read");
                delivery.handle.ack().await;
                None
            }
        }
    }

    /// Learns after a reset how far the stream was. Nothing is pulled before that.
    async fn look_at_stream(&mut self) {
        self.claim_up_to = u64::MAX;
        let mut connection = self.core.bus.connection();
        tokio::select! {
            _ = connection.wait_for(|connection| connection.connected) => {}
            _ = self.signal.wait_for(|signal| signal.stop) => return,
            _ = self.stage.wait_for(|stage| *stage >= Stage::Draining) => return,
        }
        while !self.must_stop() {
            match self.core.bus.stream_epoch().await {
                Ok(epoch) => {
                    self.claim_up_to = epoch.map_or(0, |epoch| epoch.last_sequence);
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, durable = self.place.durable, "not pulled");
                    self.pause().await;
                }
            }
        }
    }

    /// Waits before asking again; cut short by news.
    async fn pause(&mut self) {
        let pause = self.back_off.next();
        tokio::select! {
            () = sleep(pause) => {}
            _ = self.signal.changed() => self.back_off = back_off(),
            _ = self.stage.changed() => {}
        }
    }

    /// Takes what still comes for what was asked, as long as it keeps coming. Where many messages wait,
    /// nothing is asked for when that is done: a message that the server picks for a request while the
    /// request is being given up would count as delivered, and may be charged.
    async fn use_up_credit(&mut self) {
        let end = Instant::now() + LAST_CREDIT;
        while self.here.credit > 0 {
            let quiet = Instant::now() + QUIET;
            tokio::select! {
                biased;
                event = self.puller.next() => match event {
                    PullEvent::Reset(_) => return self.balance(),
                    event => self.follow(event).await,
                },
                () = sleep_until(quiet.min(end)) => return,
            }
        }
    }

    /// Asks for no more. What has already been sent is admitted, to be given back if the worker drains.
    async fn close(&mut self) {
        const LIMIT: Duration = Duration::from_secs(4);
        self.use_up_credit().await;
        self.puller.close().await;
        let rest = async {
            while self.puller.credit() > 0 {
                match self.puller.next().await {
                    PullEvent::Reset(_) => return,
                    event => self.follow(event).await,
                }
            }
        };
        if timeout(LIMIT, rest).await.is_err() {
            tracing::debug!(durable = self.place.durable, "a queue was left in a hurry");
        }
    }
}

/// Whether it was stored so late that an earlier copy of it may have been forgotten by the server.
fn is_late(item: &WorkItem, delivery: &Delivery) -> bool {
    let late =
        item.fresh_until_ms.is_some_and(|until| delivery.published_unix_nanos / 1_000_000 > until);
    if late {
        metrics::counter!("tasker_worker_late_items_total").increment(1);
    }
    late && !guard_is_off(Guard::FreshUntil)
}

impl Drop for PullLoop {
    fn drop(&mut self) {
        let credit = std::mem::take(&mut self.here.credit);
        self.core.ledger.note_idle(&mut self.here);
        self.core.ledger.void(&self.here, credit);
        self.core.ledger.remove_queue();
    }
}
