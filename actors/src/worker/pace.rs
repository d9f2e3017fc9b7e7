//! Whether steps end so quickly that more of them may be fetched than run.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A step that takes no longer is quick.
const QUICK: Duration = Duration::from_millis(5);
/// A step that takes no longer is brisk: what waits behind it is run within moments.
const BRISK: Duration = Duration::from_millis(250);
/// Quick or brisk steps that ended so long ago say nothing about what comes.
const RECENT: Duration = Duration::from_millis(500);
/// Steps that may wait for each slot: with the one that runs, the share of a slot in what is on the bus.
const AHEAD: u32 = 3;
/// Slots for which one may wait behind brisk ones, so that a slot that is freed has work at once.
const BRISK_SHARE: u32 = 4;
/// Steps that may wait in a worker, whatever its slots.
const MOST_AHEAD: u32 = 512;

/// How quickly the last steps of a worker ended.
pub(crate) struct Pace {
    begun: Instant,
    /// Quick steps since the last one that was not, and those that were brisk at least.
    quick: AtomicU32,
    brisk: AtomicU32,
    /// When the last step ended, in milliseconds since the beginning.
    last_ms: AtomicU64,
}

impl Pace {
    pub(crate) fn new() -> Self {
        let none = || AtomicU32::new(0);
        Self { begun: Instant::now(), quick: none(), brisk: none(), last_ms: AtomicU64::new(0) }
    }

    /// A step has ended that ran for so long.
    pub(crate) fn note(&self, ran: Duration) {
        for (most, in_a_row) in [(QUICK, &self.quick), (BRISK, &self.brisk)] {
            if ran <= most {
                // Wraps after four thousand million steps, and begins anew.
                in_a_row.fetch_add(1, Ordering::Relaxed);
            } else {
                in_a_row.store(0, Ordering::Relaxed);
            }
        }
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// How many steps may be fetched beside those that run: none, unless as many as there are slots have
    /// been quick or brisk, one after the other, a moment ago.
    pub(crate) fn ahead(&self, slots: u32) -> u32 {
        self.ahead_at(slots, self.now_ms())
    }

    fn ahead_at(&self, slots: u32, now_ms: u64) -> u32 {
        let age = now_ms.saturating_sub(self.last_ms.load(Ordering::Relaxed));
        let all = |in_a_row: &AtomicU32| in_a_row.load(Ordering::Relaxed) >= slots;
        if age > RECENT.as_millis() as u64 {
            0
        } else if all(&self.quick) {
            slots.saturating_mul(AHEAD).min(MOST_AHEAD)
        } else if all(&self.brisk) {
            slots.div_ceil(BRISK_SHARE).min(MOST_AHEAD)
        } else {
            0
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_quick_steps_are_fetched_ahead() {
        let pace = Pace::new();
        let note = |n: u32, ran: Duration| (0..n).for_each(|_| pace.note(ran));
        let ahead = |slots, later_ms| {
            let last_ms = pace.last_ms.load(Ordering::Relaxed);
            pace.ahead_at(slots, last_ms + later_ms)
        };
        assert_eq!(ahead(4, 0), 0);
        note(3, QUICK);
        assert_eq!(ahead(4, 0), 0);
        note(1, QUICK);
        assert_eq!((ahead(4, 0), ahead(5, 0)), (12, 0));
        note(1, QUICK + Duration::from_nanos(1));
        assert_eq!((ahead(4, 0), ahead(5, 0), ahead(6, 0)), (1, 2, 0));
        note(1, BRISK + Duration::from_nanos(1));
        assert_eq!(ahead(4, 0), 0);
        note(1_000, Duration::ZERO);
        assert_eq!((ahead(1_000, 500), ahead(1_000, 501)), (MOST_AHEAD, 0));
    }
}
