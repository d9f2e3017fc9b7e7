use std::time::{Duration, Instant};

/// How long a row of failures is put up with.
const LIMIT: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Says how long to wait before the next try of one request.
#[derive(Debug)]
pub(super) struct Patience {
    first_failure: Option<Instant>,
    wait: Duration,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { first_failure: None, wait: FIRST_WAIT }
    }

    /// The pause after a failure at `now`; `None` when it is enough.
    pub(super) fn after_failure(&mut self, now: Instant) -> Option<Duration> {
        let failing_for = now.duration_since(*self.first_failure.get_or_insert(now));
        let left = LIMIT.checked_sub(failing_for).filter(|left| !left.is_zero())?;
        let wait = self.wait.min(left);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_after_its_limit() {
        let mut patience = Patience::new();
        let start = Instant::now();
        let mut now = start;
        let mut waits = Vec::new();
        while let Some(wait) = patience.after_failure(now) {
            waits.push(wait);
            now += wait;
        }
        assert_eq!(now - start, LIMIT);
        assert_eq!(waits[..3], [100, 200, 400].map(Duration::from_millis));
        assert!(waits.iter().all(|&wait| wait <= LONGEST_WAIT));
    }
}
