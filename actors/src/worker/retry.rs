use std::time::Duration;

/// Pauses between repetitions of a request: they double up to a limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackOff {
    next: Duration,
    most: Duration,
}

impl BackOff {
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// For requests to the orchestrators: soon at first, since one of several may just have gone.
    pub(crate) const fn of_requests() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(2))
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause
    }

    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        let mut back_off = BackOff::new(Duration::from_millis(500), Duration::from_secs(2));
        let pauses = [back_off.next(), back_off.next(), back_off.next(), back_off.next()];
        assert_eq!(pauses.map(|pause| pause.as_millis()), [500, 1_000, 2_000, 2_000]);
    }
}
