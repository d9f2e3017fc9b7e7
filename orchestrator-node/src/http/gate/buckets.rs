//! How many requests may come from where: token buckets, one for each token or address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tasker_messages::TokenId;

/// Who is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// Whoever has this token.
    Token(TokenId),
    /// Whoever has no token that is accepted, by address; of IPv6 by network, since one machine may
    /// have all of it.
    Address(IpAddr),
    /// Those for whom there is no room.
    Others,
}

impl Source {
    pub(super) fn of_address(address: IpAddr) -> Self {
        let network = match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        };
        Self::Address(network)
    }
}

/// A bucket for each source that was heard of lately.
#[derive(Debug)]
pub(super) struct Buckets {
    per_second: f64,
    burst: f64,
    levels: Mutex<Levels>,
}

#[derive(Debug, Default)]
struct Levels {
    of: HashMap<Source, Level>,
    swept_at: Option<Instant>,
}

/// How many requests a source may send, as of a moment.
#[derive(Debug, Clone, Copy)]
struct Level {
    left: f64,
    at: Instant,
}

/// Most buckets; whoever comes beyond that shares one.
const MOST: usize = 16_384;
/// Looking for buckets that are full again is not for every request.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

impl Buckets {
    /// No requests a second is no limit.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let (per_second, burst) = (f64::from(per_second), f64::from(burst.max(1)));
        Self { per_second, burst, levels: Mutex::default() }
    }

    /// Takes one request out of the bucket of a source, if there is one.
    pub(super) fn take(&self, source: Source, now: Instant) -> bool {
        if self.per_second == 0.0 {
            return true;
        }
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let source = if self.has_room(&mut levels, source, now) { source } else { Source::Others };
        let full = Level { left: self.burst, at: now };
        let level = levels.of.entry(source).or_insert(full);
        *level = Level { left: self.refilled(*level, now), at: now };
        if level.left < 1.0 {
            return false;
        }
        level.left -= 1.0;
        true
    }

    fn refilled(&self, level: Level, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(level.at).as_secs_f64();
        (level.left + passed * self.per_second).min(self.burst)
    }

    /// Makes room by forgetting those that are full, which is what a new one is.
    fn has_room(&self, levels: &mut Levels, source: Source, now: Instant) -> bool {
        if levels.of.len() < MOST || levels.of.contains_key(&source) {
            return true;
        }
        let is_early = |at: Instant| now.saturating_duration_since(at) < BETWEEN_SWEEPS;
        if !levels.swept_at.is_some_and(is_early) {
            levels.of.retain(|_, level| self.refilled(*level, now) < self.burst);
            levels.swept_at = Some(now);
        }
        levels.of.len() < MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Source {
        Source::of_address(text.parse().expect("an address"))
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let buckets = Buckets::new(2, 3);
        let start = Instant::now();
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        let at = |ms| start + Duration::from_millis(ms);
        let table = [
            (0, one, true),
            (0, one, true),
            (0, one, true),
            (0, one, false),
            (0, other, true),
            (499, one, false),
            (500, one, true),
            (500, one, false),
            // What was not used is kept, up to the burst.
            (9_000, one, true),
            (9_000, one, true),
            (9_000, one, true),
            (9_000, one, false),
            // A clock that goes back gives nothing.
            (8_000, one, false),
        ];
        for (n, (ms, source, expect)) in table.into_iter().enumerate() {
            assert_eq!(buckets.take(source, at(ms)), expect, "{n}");
        }
        let unlimited = Buckets::new(0, 1);
        assert!((0..100).all(|_| unlimited.take(one, start)));
    }

    #[test]
    fn addresses_of_one_machine_are_one() {
        assert_eq!(address("2001:db8:1:2:3:4:5:6"), address("2001:db8:1:2::1"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        assert_ne!(address("10.0.0.1"), address("10.0.0.2"));
    }

    #[test]
    fn memory_is_bounded() {
        let buckets = Buckets::new(1, 2);
        let start = Instant::now();
        let source = |n: usize| Source::of_address(IpAddr::from((n as u32).to_be_bytes()));
        assert!((0..MOST).all(|n| buckets.take(source(n), start)));
        let size = || buckets.levels.lock().expect("not poisoned").of.len();
        // All of them are in use, so that those who come now share what is left for one.
        let admitted = (MOST..2 * MOST).filter(|&n| buckets.take(source(n), start)).count();
        assert_eq!((admitted, size()), (2, MOST + 1));
        // A second later they are forgotten.
        assert!(buckets.take(source(5 * MOST), start + Duration::from_secs(2)));
        assert_eq!(size(), 1);
    }
}
