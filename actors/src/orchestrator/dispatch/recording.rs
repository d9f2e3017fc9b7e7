//! Which dispatches are on the bus and not recorded yet. They are recorded in sets, one at a time.

use std::time::Duration;

use tasker_messages::StepId;

/// A step under the number of its dispatch.
pub(crate) type Dispatch = (StepId, u32);

/// Recording waits this long for more dispatches.
const RECORD_AFTER: Duration = Duration::from_millis(20);
/// Dispatches that are recorded by one statement. When as many wait, they do so no longer.
const MAX_RECORDED: usize = 4_096;

/// Dispatches on their way into rows.
#[derive(Default)]
pub(crate) struct Recording {
    waiting: Vec<Dispatch>,
    /// What the statement that runs records.
    under_way: Vec<Dispatch>,
    /// What was recorded while a sweep reads: it may have read the rows before.
    swept: Option<Vec<Dispatch>>,
    /// A look at what waits is to come.
    planned: bool,
}

impl Recording {
    pub(crate) fn add(&mut self, dispatches: &[Dispatch]) {
        self.waiting.extend_from_slice(dispatches);
    }

    /// All that is on the bus, though the rows that a sweep has read may not say so.
    pub(crate) fn all(&self) -> impl Iterator<Item = Dispatch> {
        self.waiting.iter().chain(&self.under_way).chain(self.swept.iter().flatten()).copied()
    }

    /// A sweep begins to read. `false` if another one has not ended.
    pub(crate) fn sweep_begins(&mut self) -> bool {
        let begins = self.swept.is_none();
        self.swept.get_or_insert_default();
        begins
    }

    /// What the sweep has found was looked at.
    pub(crate) fn sweep_ends(&mut self) {
        self.swept = None;
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
        if let Some(swept) = &mut self.swept {
            swept.extend(ended);
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
        assert!(recording.sweep_begins());
        assert!(!recording.sweep_begins(), "one at a time");
        for dispatch in &all {
            recording.add(&[*dispatch]);
            recording.begin();
            recording.end();
        }
        assert_eq!(recording.all().collect::<Vec<_>>(), all);
        recording.sweep_ends();
        assert_eq!(recording.all().count(), 0);
        assert!(recording.sweep_begins());
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
