//! The server's clock, as far as it is known here.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// Not known.
const UNKNOWN: i64 = i64::MIN;

/// What the clock of the server was when this process began, by its last answer.
///
/// Only ever behind: an answer is older than its arrival, and the clock of this process may stop while
/// the machine sleeps.
#[derive(Debug)]
pub(crate) struct ServerClock {
    began: Instant,
    unix_nanos_then: AtomicI64,
}

impl ServerClock {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), unix_nanos_then: AtomicI64::new(UNKNOWN) }
    }

    /// An answer has arrived that says when the server wrote it.
    pub(crate) fn note(&self, unix_nanos: i64) {
        let then = unix_nanos.saturating_sub(self.since_begin(Instant::now()));
        self.unix_nanos_then.store(then, Ordering::Relaxed);
    }

    /// What the server's clock was at a moment, or a little less.
    pub(crate) fn unix_nanos_at(&self, moment: Instant) -> Option<i64> {
        match self.unix_nanos_then.load(Ordering::Relaxed) {
            UNKNOWN => None,
            then => Some(then.saturating_add(self.since_begin(moment))),
        }
    }

    fn since_begin(&self, moment: Instant) -> i64 {
        let since = moment.saturating_duration_since(self.began);
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_by_the_clock_of_the_server() {
        let clock = ServerClock::new();
        assert_eq!(clock.unix_nanos_at(Instant::now()), None);
        let before = Instant::now();
        clock.note(1_700_000_000_000_000_000);
        let after = Instant::now();
        let at = |moment| clock.unix_nanos_at(moment).expect("known");
        assert!(at(before) <= 1_700_000_000_000_000_000 && at(after) >= 1_700_000_000_000_000_000);
        assert_eq!(at(after + Duration::from_secs(2)) - at(after), 2_000_000_000);
        // Another server, or its clock was set.
        clock.note(1_600_000_000_000_000_000);
        assert!(at(after) < 1_600_000_001_000_000_000);
    }
}
