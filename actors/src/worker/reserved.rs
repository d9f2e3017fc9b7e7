//! Slots kept free for the steps that the answer to a report may bring: what a worker says it takes, it
//! has room for, whatever is delivered meanwhile, unless the answer takes longer than a second.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant, sleep_until};

use super::core::{Core, Stage};

/// How long slots are kept for an answer. Whoever answers later than that may be gone, and others have
/// work as well.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// Slots that nobody else gets. What is not used is given back at the end.
pub(crate) struct Reserved {
    core: Arc<Core>,
    /// Each of them is booked in the ledger.
    slots: Option<OwnedSemaphorePermit>,
    until: Instant,
}

impl Reserved {
    /// As many slots as there are, up to so many.
    pub(crate) fn up_to(core: &Arc<Core>, most: u32) -> Self {
        let idle = u32::try_from(core.slots.available_permits()).unwrap_or(u32::MAX);
        let most = if core.stage() == Stage::Serving { most.min(idle) } else { 0 };
        let booked = core.ledger.book(most);
        let slots = Arc::clone(&core.slots).try_acquire_many_owned(booked).ok();
        if slots.is_none() {
            core.ledger.give(booked);
        }
        Self { core: Arc::clone(core), slots, until: Instant::now() + KEPT_FOR }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.slots.as_ref().map_or(0, |slots| slots.num_permits() as u32)
    }

    /// One of them, or one that has become free; its booking is the caller's from now on.
    pub(crate) fn take_one(&mut self) -> Option<OwnedSemaphorePermit> {
        let kept = self.slots.as_mut().and_then(|slots| slots.split(1));
        kept.or_else(|| {
            Self::up_to(&self.core, 1).slots.take().filter(|slot| slot.num_permits() > 0)
        })
    }

    /// Returns when they have been kept for long enough; never if there are none.
    pub(crate) async fn expire(&self) {
        match self.len() {
            0 => std::future::pending().await,
            _ => sleep_until(self.until).await,
        }
    }

    /// Gives them back.
    pub(crate) fn give_back(&mut self) {
        if let Some(slots) = self.slots.take() {
            self.core.ledger.give(slots.num_permits() as u32);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::ledger::{Here, Seat};
    use super::*;

    #[tokio::test]
    async fn what_is_reserved_nobody_else_gets() {
        let core = fixture::core(|worker| worker.slots = 4).await;
        let mut reserved = Reserved::up_to(&core, 3);
        assert_eq!((reserved.len(), core.ledger.busy()), (3, 3));
        // Another report has what is left, and a third one nothing.
        let second = Reserved::up_to(&core, 3);
        assert_eq!((second.len(), Reserved::up_to(&core, 3).len()), (1, 0));
        // What is delivered meanwhile waits.
        let _seat = Seat::take(&core, &Here::default());
        assert_eq!((core.ledger.busy(), core.slots.available_permits()), (5, 0));
        let slot = reserved.take_one().expect("a slot");
        assert_eq!((reserved.len(), core.ledger.busy()), (2, 5));
        drop((reserved, second));
        assert_eq!((core.ledger.busy(), core.slots.available_permits()), (2, 3));
        drop(slot);
        core.ledger.give(1);
        assert_eq!((core.ledger.busy(), core.slots.available_permits()), (1, 4));
    }

    #[tokio::test]
    async fn without_a_reservation_there_may_be_a_slot() {
        let core = fixture::core(|worker| worker.slots = 1).await;
        let mut reserved = Reserved::up_to(&core, 0);
        let slot = reserved.take_one().expect("a slot");
        assert!(reserved.take_one().is_none() && slot.num_permits() == 1);
        assert_eq!(core.ledger.busy(), 1);
        core.ledger.give(1);
        drop(slot);
        core.raise_stage(Stage::Draining);
        assert!(reserved.take_one().is_none());
        assert_eq!((core.ledger.busy(), core.slots.available_permits()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_not_kept_for_ever() {
        let core = fixture::core(|worker| worker.slots = 1).await;
        let mut reserved = Reserved::up_to(&core, 1);
        let began = Instant::now();
        reserved.expire().await;
        assert_eq!(began.elapsed(), KEPT_FOR);
        reserved.give_back();
        assert_eq!((reserved.len(), core.ledger.busy()), (0, 0));
    }
}
