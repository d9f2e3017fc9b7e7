//! How much the worker has asked for, and how much more it may.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::core::Core;
use super::pace::Pace;

/// What the decision how much to ask for rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Steps that the worker runs at a time.
    pub(crate) slots: u32,
    /// Steps that may wait for a slot, because those before them are quick.
    pub(crate) ahead: u32,
    /// Queues that it pulls.
    pub(crate) queues: u32,
    /// Steps that have not been finished, waiting ones included.
    pub(crate) busy: u32,
    /// Steps of all queues that were asked for and have not come.
    pub(crate) credit: u32,
    /// Deliveries of this queue that were.
    pub(crate) credit_here: u32,
    /// How many steps a delivery of this queue brings.
    pub(crate) each: u32,
    /// Of those of other queues, how many go beyond what is known to wait there.
    pub(crate) idle_elsewhere: u32,
    /// Messages that wait on the server, as the last delivery of this queue said.
    pub(crate) backlog: u64,
    /// Whether to ask even for little: it has been waited for more.
    pub(crate) impatient: bool,
}

/// How many more deliveries to ask for in one request. Each is taken to bring as many steps as the last one
/// of the queue.
///
/// A queue whose backlog is not known keeps one credit, which costs the first message of a burst
/// one round trip; a worker of a single queue keeps all its free slots. One credit of each other
/// queue is left out of the count, or what lies idle there, if that is more: empty queues do not keep
/// slots from a full one, also where a queue was the only one when it asked. So at most
/// `slots + ahead + max(slots, queues)` deliveries are on their way or waiting, beside what is
/// reserved: where steps are slow, a burst in a queue that was idle may wait here for a slot. What was
/// fetched ahead may lie idle beyond that, and keep slots from others, until its request ends, a second
/// at the most. Requests are made in chunks of a quarter of the room, so that tiny handlers do not cost
/// one each.
pub(crate) fn next_request(demand: &Demand) -> u32 {
    let most = demand.slots.saturating_add(demand.ahead);
    let free = most.saturating_sub(demand.busy);
    if free == 0 {
        return 0;
    }
    let each = demand.each.max(1);
    let booked_here = demand.credit_here.saturating_mul(each);
    let others = demand.credit.saturating_sub(booked_here);
    let left_out = demand.idle_elsewhere.min(demand.slots).max(demand.queues.saturating_sub(1));
    let counted = others.saturating_sub(left_out);
    let room = free.saturating_sub(counted).saturating_sub(booked_here);
    // A delivery may bring more than there is room for, where there would be none else.
    let fits = match room / each {
        0 if demand.credit_here == 0 => room.min(1),
        fits => fits,
    };
    let probe = if demand.queues <= 1 { demand.slots } else { 1 };
    let expected = u32::try_from(demand.backlog).unwrap_or(u32::MAX).max(probe);
    let wanted = expected.saturating_sub(demand.credit_here).min(fits);
    let enough = wanted.saturating_mul(each) >= chunk(most) || wanted == expected;
    if enough || (demand.credit_here == 0 && demand.impatient) { wanted } else { 0 }
}

fn chunk(most: u32) -> u32 {
    (most / 4).max(1)
}

/// The shared account of all pull loops of a worker.
pub(crate) struct Ledger {
    account: Mutex<Account>,
    /// Tells pull loops that there may be room again.
    freed: watch::Sender<()>,
    pub(crate) pace: Pace,
}

struct Account {
    slots: u32,
    queues: u32,
    busy: u32,
    credit: u32,
    /// The part of the credit that nothing is known to wait for.
    idle: u32,
    /// Whether a queue without credit waits for room.
    starved: bool,
}

/// One queue's part of the account.
#[derive(Debug, Default)]
pub(crate) struct Here {
    /// Deliveries that were asked for and have not come.
    pub(crate) credit: u32,
    /// Messages that wait on the server, as the last delivery said.
    pub(crate) backlog: u64,
    /// How many of `credit` the ledger counts as idle.
    idle: u32,
    /// How many steps beyond the first the last delivery brought, which the next ones are taken to.
    more: u32,
}

impl Here {
    /// How many steps a delivery is taken to bring.
    fn each(&self) -> u32 {
        self.more + 1
    }
}

/// What a pull loop is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Ask for so many.
    Request(u32),
    /// There is little room: see again soon, then take what there is.
    Soon,
    /// Wait until there is room, or for what was asked for.
    Wait,
}

impl Ledger {
    pub(crate) fn new(slots: u32) -> Self {
        let account = Account { slots, queues: 0, busy: 0, credit: 0, idle: 0, starved: false };
        Self { account: Mutex::new(account), freed: watch::Sender::new(()), pace: Pace::new() }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when there may be room again.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    pub(crate) fn add_queue(&self) {
        self.account().queues += 1;
    }

    pub(crate) fn remove_queue(&self) {
        let mut account = self.account();
        account.queues = account.queues.saturating_sub(1);
        drop(account);
        self.freed.send_replace(());
    }

    pub(crate) fn queues(&self) -> u32 {
        self.account().queues
    }

    pub(crate) fn busy(&self) -> u32 {
        self.account().busy
    }

    /// Decides how much a queue asks for, and books it as credit.
    pub(crate) fn ask(&self, here: &Here, impatient: bool) -> Ask {
        let mut account = self.account();
        let Account { slots, queues, busy, credit, idle, .. } = *account;
        let &Here { credit: credit_here, backlog, idle: idle_here, .. } = here;
        let demand = Demand {
            slots,
            ahead: self.pace.ahead(slots),
            queues,
            busy,
            credit,
            credit_here,
            each: here.each(),
            idle_elsewhere: idle.saturating_sub(idle_here),
            backlog,
            impatient,
        };
        let n = next_request(&demand);
        if n > 0 {
            account.credit += n * here.each();
            return Ask::Request(n);
        }
        if credit_here > 0 {
            return Ask::Wait;
        }
        let soon = next_request(&Demand { impatient: true, ..demand }) > 0;
        account.starved |= !soon;
        if soon { Ask::Soon } else { Ask::Wait }
    }

    /// Brings the count of idle credit up to what is known of a queue now.
    pub(crate) fn note_idle(&self, here: &mut Here) {
        let waiting = u32::try_from(here.backlog).unwrap_or(u32::MAX);
        let idle = here.credit.saturating_sub(waiting).saturating_mul(here.each());
        if idle == here.idle {
            return;
        }
        let mut account = self.account();
        account.idle = account.idle.saturating_sub(here.idle) + idle;
        let wake = idle > here.idle && std::mem::take(&mut account.starved);
        here.idle = idle;
        drop(account);
        if wake {
            self.freed.send_replace(());
        }
    }

    /// A delivery has brought so many steps: as many are booked for each that is still to come. An idle
    /// queue books one: what comes next is not known.
    pub(crate) fn note_each(&self, here: &mut Here, steps: u32) {
        let more = if here.backlog == 0 { 0 } else { steps.saturating_sub(1) };
        if more == here.more {
            return;
        }
        let mut account = self.account();
        let booked = account.credit.saturating_sub(here.credit * here.each());
        let fewer = more < here.more;
        here.more = more;
        account.credit = booked + here.credit * here.each();
        let wake = fewer && std::mem::take(&mut account.starved);
        drop(account);
        if wake {
            self.freed.send_replace(());
        }
    }

    /// Deliveries of a queue that were asked for and do not come.
    pub(crate) fn void(&self, here: &Here, deliveries: u32) {
        if deliveries == 0 {
            return;
        }
        let mut account = self.account();
        account.credit = account.credit.saturating_sub(deliveries * here.each());
        let wake = std::mem::take(&mut account.starved);
        drop(account);
        if wake {
            self.freed.send_replace(());
        }
    }

    /// A delivery has come: one credit becomes one held step.
    pub(crate) fn take(&self, here: &Here) {
        let mut account = self.account();
        account.credit = account.credit.saturating_sub(here.each());
        account.busy += 1;
    }

    /// A delivery has brought so many steps more than one.
    fn take_more(&self, steps: u32) {
        self.account().busy += steps;
    }

    /// Books slots for steps that come without having been asked for: as many as nothing is booked for,
    /// up to so many.
    pub(crate) fn book(&self, most: u32) -> u32 {
        let mut account = self.account();
        let booked = account.slots.saturating_sub(account.busy).min(most);
        account.busy += booked;
        booked
    }

    /// So many deliveries are finished as far as slots are concerned.
    pub(crate) fn give(&self, slots: u32) {
        if slots == 0 {
            return;
        }
        let mut account = self.account();
        account.busy = account.busy.saturating_sub(slots);
        let most = account.slots.saturating_add(self.pace.ahead(account.slots));
        let free = most.saturating_sub(account.busy).saturating_sub(account.credit);
        let wake = account.starved || free >= chunk(most);
        account.starved = false;
        drop(account);
        if wake {
            self.freed.send_replace(());
        }
    }
}

/// The slot of a delivery that has come, until its hold has it: given back if there never is one, also
/// if the loop that took it in ends in between.
pub(crate) struct Seat {
    core: Arc<Core>,
    booked: bool,
}

impl Seat {
    /// A delivery of this queue has come.
    pub(crate) fn take(core: &Arc<Core>, here: &Here) -> Self {
        core.ledger.take(here);
        Self { core: Arc::clone(core), booked: true }
    }

    /// One for each of the steps that the delivery has brought.
    pub(crate) fn split(self, steps: u32) -> Vec<Self> {
        let more = steps.saturating_sub(1);
        self.core.ledger.take_more(more);
        let others = (0..more).map(|_| Self { core: Arc::clone(&self.core), booked: true });
        let mut seats: Vec<Self> = others.collect();
        seats.push(self);
        seats
    }

    /// A hold gives it back from now on.
    pub(crate) fn pass_on(mut self) {
        self.booked = false;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.booked {
            self.core.ledger.give(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn here(credit: u32, backlog: u64) -> Here {
        Here { credit, backlog, ..Here::default() }
    }

    fn demand(slots: u32, queues: u32, busy: u32, credit: (u32, u32), backlog: u64) -> Demand {
        let (credit, credit_here) = credit;
        Demand {
            slots,
            ahead: 0,
            queues,
            busy,
            credit,
            credit_here,
            each: 1,
            idle_elsewhere: 0,
            backlog,
            impatient: false,
        }
    }

    #[test]
    fn what_may_wait_is_asked_for_only_if_there_is_that_much() {
        // (slots, ahead, busy, credit, backlog) -> asked
        let table = [
            // An idle queue keeps no more than its slots.
            ((64, 448, 0, 0, 0), 64),
            ((64, 448, 0, 0, 100), 100),
            ((64, 448, 0, 0, 10_000), 512),
            ((64, 448, 400, 0, 10_000), 0),
            ((64, 448, 300, 0, 10_000), 212),
            ((64, 448, 64, 256, 10_000), 192),
            ((64, 448, 512, 0, 10_000), 0),
            // As many as before are there, and it may not be ahead any more.
            ((64, 0, 512, 0, 10_000), 0),
        ];
        for ((slots, ahead, busy, credit, backlog), expect) in table {
            let demand = Demand { ahead, ..demand(slots, 1, busy, (credit, credit), backlog) };
            assert_eq!(next_request(&demand), expect, "{demand:?}");
        }
    }

    #[test]
    fn requests() {
        // (slots, queues, busy, (credit, credit here), backlog) -> asked, asked when impatient
        let table = [
            // Idle: one queue has all free slots, several have one each.
            ((64, 1, 0, (0, 0), 0), 64, 64),
            ((64, 1, 0, (64, 64), 0), 0, 0),
            ((64, 1, 0, (63, 63), 0), 0, 0),
            ((64, 1, 0, (48, 48), 0), 16, 16),
            ((64, 3, 0, (0, 0), 0), 1, 1),
            ((64, 3, 0, (2, 0), 0), 1, 1),
            ((64, 3, 0, (3, 1), 0), 0, 0),
            // Backlog: everything that is free, in chunks, at most what waits.
            ((64, 3, 1, (2, 0), 1_000), 63, 63),
            ((64, 3, 1, (2, 0), 5), 5, 5),
            ((64, 3, 1, (5, 3), 5), 0, 0),
            ((64, 3, 40, (12, 10), 1_000), 0, 0),
            ((64, 3, 30, (12, 10), 1_000), 24, 24),
            // Two queues with backlog share.
            ((64, 2, 16, (30, 0), 1_000), 19, 19),
            ((64, 2, 32, (33, 0), 1_000), 0, 0),
            // Little room without credit: only when impatient.
            ((64, 1, 60, (0, 0), 1_000), 0, 4),
            ((64, 1, 60, (1, 1), 1_000), 0, 0),
            ((64, 1, 63, (0, 0), 1), 0, 1),
            // No slot is free: nothing, whatever waits.
            ((64, 1, 64, (0, 0), 1_000), 0, 0),
            ((64, 9, 70, (0, 0), 1_000), 0, 0),
            // One slot, many queues.
            ((1, 5, 0, (4, 0), 0), 1, 1),
            ((1, 5, 1, (4, 0), 0), 0, 0),
            ((1, 1, 0, (0, 0), u64::MAX), 1, 1),
        ];
        for ((slots, queues, busy, credit, backlog), expect, impatiently) in table {
            let calm = demand(slots, queues, busy, credit, backlog);
            assert_eq!(next_request(&calm), expect, "{calm:?}");
            let hasty = Demand { impatient: true, ..calm };
            assert_eq!(next_request(&hasty), impatiently, "{hasty:?}");
        }
    }

    #[test]
    fn a_queue_that_comes_later_finds_slots() {
        let ledger = Ledger::new(8);
        ledger.add_queue();
        let (mut first, mut second) = (here(0, 0), here(0, 100));
        // It is the only one, so that it keeps all slots.
        assert_eq!(ledger.ask(&first, false), Ask::Request(8));
        first.credit = 8;
        ledger.note_idle(&mut first);
        ledger.add_queue();
        assert_eq!(ledger.ask(&second, false), Ask::Request(8));
        second.credit = 8;
        (0..4).for_each(|_| ledger.take(&second));
        ledger.void(&second, 4);
        second.credit = 0;
        // Something waits for the first one as well: what it has asked for is not idle any more.
        first.backlog = 50;
        ledger.note_idle(&mut first);
        assert_eq!(ledger.ask(&second, false), Ask::Wait);
        // And idle again, of which whoever waits hears.
        let freed = ledger.freed();
        first.backlog = 0;
        ledger.note_idle(&mut first);
        assert!(freed.has_changed().expect("open"));
        assert_eq!(ledger.ask(&second, false), Ask::Request(4));
    }

    #[test]
    fn never_more_than_the_bound() {
        let mut ahead = false;
        for (slots, quick) in [1, 2, 7, 64].into_iter().flat_map(|n| [(n, false), (n, true)]) {
            for queues in [1, 2, 5] {
                let ledger = Ledger::new(slots);
                // They are fetched ahead of for half a second: long enough, or the bound is the lower one.
                (0..slots * u32::from(quick)).for_each(|_| ledger.pace.note(Duration::ZERO));
                let most = slots + ledger.pace.ahead(slots) + slots.max(queues);
                let mut highest = 0;
                (0..queues).for_each(|_| ledger.add_queue());
                let mut loops: Vec<Here> = (0..queues).map(|_| here(0, 0)).collect();
                for round in 0..1_000_usize {
                    let here = &mut loops[round % queues as usize];
                    here.backlog = (round % 90) as u64;
                    if let Ask::Request(n) = ledger.ask(here, round % 3 == 0) {
                        here.credit += n;
                    }
                    if here.credit > 0 && round % 4 != 0 {
                        here.credit -= 1;
                        ledger.take(here);
                    }
                    ledger.note_idle(here);
                    if round % 5 == 0 && ledger.busy() > 0 {
                        ledger.give(1);
                    }
                    let account = ledger.account();
                    assert_eq!(account.credit, loops.iter().map(|here| here.credit).sum::<u32>());
                    assert_eq!(account.idle, loops.iter().map(|here| here.idle).sum::<u32>());
                    highest = highest.max(account.busy + account.credit);
                }
                assert!(highest <= most, "{highest} of {most}");
                ahead |= highest > slots + slots.max(queues);
            }
        }
        assert!(ahead, "something is fetched ahead");
    }

    #[test]
    fn deliveries_that_bring_several_steps_are_booked_as_such() {
        let ledger = Ledger::new(64);
        ledger.add_queue();
        let mut here = here(0, 1_000);
        assert_eq!(ledger.ask(&here, false), Ask::Request(64));
        here.credit = 64;
        ledger.take(&here);
        here.credit -= 1;
        ledger.take_more(15);
        // As many are booked for each that is still to come, so that nothing is asked for meanwhile.
        ledger.note_each(&mut here, 16);
        let credit = ledger.account().credit;
        assert_eq!((credit, ledger.busy()), (63 * 16, 16));
        assert_eq!(ledger.ask(&here, true), Ask::Wait);
        ledger.void(&here, 61);
        here.credit = 2;
        assert_eq!(ledger.account().credit, 2 * 16);
        assert_eq!(ledger.ask(&here, false), Ask::Request(1), "16 steps run, and 32 are to come");
        here.credit = 3;
        assert_eq!(ledger.ask(&here, true), Ask::Wait);
        ledger.give(16);
        assert_eq!(ledger.ask(&here, false), Ask::Request(1));
        here.credit = 4;
        // The queue is empty: what comes next is not known.
        here.backlog = 0;
        ledger.note_each(&mut here, 16);
        assert_eq!(ledger.account().credit, 4);
        // A worker of one slot asks for one, whatever it brings.
        let small = Demand { each: 16, ..demand(1, 1, 0, (0, 0), 1_000) };
        assert_eq!(next_request(&Demand { impatient: true, ..small }), 1);
    }

    #[tokio::test]
    async fn a_seat_is_given_back_unless_a_hold_has_it() {
        let core = super::super::fixture::core(|_| {}).await;
        let seat = Seat::take(&core, &Here::default());
        assert_eq!(core.ledger.busy(), 1);
        drop(seat);
        assert_eq!(core.ledger.busy(), 0);
        Seat::take(&core, &Here::default()).pass_on();
        assert_eq!(core.ledger.busy(), 1);
    }

    #[test]
    fn a_starved_queue_is_woken() {
        let ledger = Ledger::new(8);
        ledger.add_queue();
        assert_eq!(ledger.ask(&here(0, 100), false), Ask::Request(8));
        (0..8).for_each(|_| ledger.take(&here(0, 0)));
        let freed = ledger.freed();
        assert_eq!(ledger.ask(&here(0, 100), false), Ask::Wait);
        ledger.give(1);
        assert!(freed.has_changed().expect("open"));
        assert_eq!(ledger.ask(&here(0, 100), false), Ask::Soon);
        assert_eq!(ledger.ask(&here(0, 100), true), Ask::Request(1));
        ledger.void(&here(0, 0), 1);
        ledger.give(1);
        assert_eq!(ledger.ask(&here(0, 100), false), Ask::Request(2));
    }
}
