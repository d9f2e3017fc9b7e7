//! Which dispatches are on the bus and not recorded yet. They are recorded in sets, one at a time.

use std::time::{Duration, Instant};

use tasker_messages::StepId;

/// A step under the number of its dispatch.
pub(crate) type Dispatch = (StepId, u32);

/// Recording waits this long for more dispatches.
const RECORD_AFTER: Duration = Duration::from_millis(20);
/// Dispatches that are recorded by one statement. When as many wait, they do so no longer.
const MAX_RECORDED: usize = 4_096;
/// A sweep that has not ended by then is taken to never end, as if the host of the database had vanished. Its
/// statements may each take as long as `database.statement_timeout_ms` says, and as long again for a connection.
const SWEEP_GIVEN_UP: Duration = Duration::from_secs(180);

/// A sweep that reads.
struct Sweep {
    number: u64,
    began: Instant,
    /// What was recorded meanwhile: it may have read the rows before.
    recorded: Vec<Dispatch>,
}

/// Dispatches on their way into rows.
#[derive(Default)]
pub(crate) struct Recording {
    waiting: Vec<Dispatch>,
    /// What the statement that runs records.
    under_way: Vec<Dispatch>,
    sweep: Option<Sweep>,
    sweeps: u64,
    /// A look at what waits is to come.
    planned: bool,
}

impl Recording {
    pub(crate) fn add(&mut self, dispatches: &[Dispatch]) {
        self.waiting.extend_from_slice(dispatches);
    }

    /// All that is on the bus and not recorded.
    pub(crate) fn all(&self) -> impl Iterator<Item = Dispatch> {
        self.waiting.iter().chain(&self.under_way).copied()
    }

    /// A sweep is to begin: its number, unless another one reads.
    pub(crate) fn sweep_begins(&mut self, now: Instant) -> Option<u64> {
        let reads = |sweep: &Sweep| now.duration_since(sweep.began) < SWEEP_GIVEN_UP;
        if self.sweep.as_ref().is_some_and(reads) {
            return None;
        }
        self.sweeps += 1;
        self.sweep = Some(Sweep { number: self.sweeps, began: now, recorded: Vec::new() });
        Some(self.sweeps)
    }

    /// A sweep has ended: what was recorded since it began, though the rows that it has read may not say so.
    /// `None` if it had been given up: then it is not known, and what it has found is no use.
    pub(crate) fn sweep_ends(&mut self, number: u64) -> Option<Vec<Dispatch>> {
        self.sweep.take_if(|sweep| sweep.number == number).map(|sweep| sweep.recorded)
    }

    /// When to look again, if something waits and no look is to come.
    pub(crate) fn plan(&mut self) -> Option<Duration> {
        let needed = !self.waiting.is_empty() && self.under_way.is_empty();
        if !needed || self.planned && self.waiting.len() < MAX_RECORDED {
            return None;
        }
        self.planned = true;
        Some(if self.waiting.len() < MAX_RECORDED { RECORD_AFTER } else { Duration::ZERO })
    }

    /// What is to be recorded now: nothing while another statement runs.
    pub(crate) fn begin(&mut self) -> Vec<Dispatch> {
        self.planned = false;
        if !self.under_way.is_empty() {
            return Vec::new();
        }
        let n = self.waiting.len().min(MAX_RECORDED);
        self.under_way = self.waiting.drain(..n).collect();
        self.under_way.clone()
    }

    /// The statement has ended.
    pub(crate) fn end(&mut self) {
        let ended = std::mem::take(&mut self.under_way);
        if let Some(sweep) = &mut self.sweep {
            sweep.recorded.extend(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn dispatches(n: usize) -> Vec<Dispatch> {
        (0..n).map(|_| (StepId::from_uuid(Uuid::now_v7()), 1)).collect()
    }

    #[test]
    fn one_set_after_the_other() {
        let mut recording = Recording::default();
        assert_eq!(recording.plan(), None);
        let first = dispatches(3);
        recording.add(&first[..1]);
        assert_eq!(recording.plan(), Some(RECORD_AFTER));
        recording.add(&first[1..]);
        assert_eq!(recording.plan(), None, "it is planned");
        assert_eq!(recording.begin(), first);
        let second = dispatches(2);
        recording.add(&second);
        assert_eq!((recording.plan(), recording.begin()), (None, vec![]), "one at a time");
        assert_eq!(recording.all().count(), 5);
        recording.end();
        assert_eq!(recording.all().collect::<Vec<_>>(), second);
        assert_eq!(recording.plan(), Some(RECORD_AFTER));
        assert_eq!(recording.begin(), second);
    }

    #[test]
    fn what_is_recorded_while_a_sweep_reads_is_known_to_it() {
        let mut recording = Recording::default();
        let all = dispatches(2);
        let now = Instant::now();
        let first = recording.sweep_begins(now).expect("none reads");
        assert_eq!(recording.sweep_begins(now), None, "one at a time");
        for dispatch in &all {
            recording.add(&[*dispatch]);
            recording.begin();
            recording.end();
        }
        assert_eq!(recording.all().count(), 0);
        assert_eq!(recording.sweep_ends(first), Some(all));
        assert_eq!(recording.sweep_ends(first), None);
        let lost = recording.sweep_begins(now).expect("none reads");
        let next = recording.sweep_begins(now + SWEEP_GIVEN_UP).expect("it never ends");
        assert_eq!(recording.sweep_ends(lost), None, "it was given up");
        assert_eq!(recording.sweep_ends(next), Some(Vec::new()));
    }

    #[test]
    fn a_full_set_does_not_wait() {
        let mut recording = Recording::default();
        let all = dispatches(MAX_RECORDED + 1);
        recording.add(&all[..1]);
        assert_eq!(recording.plan(), Some(RECORD_AFTER));
        recording.add(&all[1..]);
        assert_eq!(recording.plan(), Some(Duration::ZERO));
        assert_eq!(recording.begin(), all[..MAX_RECORDED]);
        recording.end();
        assert_eq!(recording.begin(), all[MAX_RECORDED..]);
    }
}
