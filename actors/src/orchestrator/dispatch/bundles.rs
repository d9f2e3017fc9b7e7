//! Bundles: several members of a batch in one message, while members are so quick that a message for each
//! costs more than running them.

use std::time::{Duration, Instant};

use tasker_store::{Finished, MemberRow};

/// So many members must have been quick before they are bundled.
const QUICK_ENOUGH: u32 = 64;
/// So many of them are outweighed by a slow one: on a busy machine anything takes long now and then.
const SLOW_WEIGHS: u32 = 16;
/// No more of them are remembered.
const MOST_QUICK: u32 = 1_024;
/// Names and ranges of one bundle: far below what a message may have.
const MAX_BYTES: usize = 64 * 1024;

/// Quick members that ended so long ago say nothing about what comes.
const RECENT: Duration = Duration::from_secs(5);
/// Most members of one message, whatever the setting says.
const MOST: u32 = 256;

/// Whether the members of a queue are quick, and its workers take bundles.
#[derive(Debug, Default)]
pub(super) struct Bundling {
    quick: u32,
    last: Option<Instant>,
    /// The template step whose members are published.
    of: String,
    /// Whether all of its workers that are alive take them, and there are any.
    pub(super) taken: bool,
}

impl Bundling {
    /// Members have ended.
    pub(super) fn note(&mut self, finished: Finished, now: Instant) {
        if finished.members == 0 {
            return;
        }
        self.last = Some(now);
        let slow = finished.slow_members.saturating_mul(SLOW_WEIGHS + 1);
        let quick = self.quick.saturating_add(finished.members).saturating_sub(slow);
        self.quick = quick.min(MOST_QUICK);
    }

    /// Members of this template step are to be published: of another one than before nothing is known.
    pub(super) fn begin(&mut self, worker_template: &str) {
        if self.of != worker_template {
            self.quick = 0;
            worker_template.clone_into(&mut self.of);
        }
    }

    pub(super) fn is_on(&self, now: Instant) -> bool {
        let recent = self.last.is_some_and(|last| now.duration_since(last) < RECENT);
        self.taken && recent && self.quick >= QUICK_ENOUGH
    }

    /// How many members a message brings at most.
    pub(super) fn size(&self, bundle_max: u32, now: Instant) -> u32 {
        if self.is_on(now) { bundle_max.clamp(1, MOST) } else { 1 }
    }
}

/// Cuts consecutive members into messages of at most so many. What was dispatched before, or must be
/// claimed, comes by itself; so do all members below `claim_below`.
pub(super) fn group(rows: &[MemberRow], most: u32, claim_below: u32) -> Vec<&[MemberRow]> {
    let fits = |row: &MemberRow| {
        row.attempt == 1
            && row.dispatch_seq == 1
            && !row.claim_required
            && row.id.ordinal() >= claim_below
    };
    let bytes = |row: &MemberRow| row.name.len() + row.cursor.as_ref().map_or(0, String::len);
    let (mut groups, mut from, mut size) = (Vec::new(), 0, 0);
    for (at, row) in rows.iter().enumerate() {
        let goes_on = at > from
            && at - from < most as usize
            && size + bytes(row) <= MAX_BYTES
            && fits(row)
            && fits(&rows[from]);
        if at > from && !goes_on {
            groups.push(&rows[from..at]);
            (from, size) = (at, 0);
        }
        size += bytes(row);
    }
    if from < rows.len() {
        groups.push(&rows[from..]);
    }
    groups
}

#[cfg(test)]
mod tests {
    use tasker_messages::BatchId;
    use uuid::Uuid;

    use super::*;

    fn finished(members: u32, slow_members: u32) -> Finished {
        Finished { steps: members, members, slow_members }
    }

    #[test]
    fn members_are_bundled_while_they_are_quick() {
        let now = Instant::now();
        let mut bundling = Bundling { taken: true, ..Bundling::default() };
        bundling.note(finished(QUICK_ENOUGH - 1, 0), now);
        assert!(!bundling.is_on(now));
        bundling.note(Finished { steps: 9, ..Finished::default() }, now);
        assert!(!bundling.is_on(now), "other steps say nothing");
        bundling.note(finished(1, 0), now);
        assert!(bundling.is_on(now));
        assert_eq!([0, 1, 16, u32::MAX].map(|n| bundling.size(n, now)), [1, 1, 16, MOST]);
        bundling.taken = false;
        assert!(!bundling.is_on(now), "a worker would not know what it gets");
        bundling.taken = true;
        assert!(!bundling.is_on(now + RECENT), "that was long ago");
        // One of seventeen weighs as much as the others; no more than so many are remembered.
        bundling.note(finished(170, 10), now);
        assert!(bundling.is_on(now));
        bundling.note(finished(1_000_000, 0), now);
        bundling.note(finished(60, 60), now);
        assert!(bundling.is_on(now));
        bundling.note(finished(1, 1), now);
        assert_eq!(bundling.size(16, now), 1);
        bundling.begin("work");
        bundling.note(finished(1_000, 0), now);
        bundling.begin("work");
        assert!(bundling.is_on(now));
        bundling.begin("other");
        assert!(!bundling.is_on(now), "nothing is known of these");
    }

    #[test]
    fn what_is_not_fresh_comes_by_itself() {
        let batch = BatchId::from_uuid(Uuid::nil());
        let row = |n: u32, cursor_bytes: usize| MemberRow {
            id: batch.member(n),
            name: "m".into(),
            attempt: 1,
            dispatch_seq: 1,
            cursor: Some("x".repeat(cursor_bytes)),
            claim_required: false,
        };
        let mut rows: Vec<MemberRow> = (0..20).map(|n| row(n, 10)).collect();
        rows[9].attempt = 2;
        rows[13].claim_required = true;
        rows[14].dispatch_seq = 2;
        rows[17] = row(17, MAX_BYTES);
        rows[18] = row(18, MAX_BYTES - 100);
        let sizes = |rows, most, claim_below| -> Vec<usize> {
            group(rows, most, claim_below).iter().map(|members| members.len()).collect()
        };
        // 0 1 2 | 3 4 5 6 | 7 8 | 9 | 10 11 12 | 13 | 14 | 15 16 | 17 | 18 19
        assert_eq!(sizes(&rows, 4, 3), [1, 1, 1, 4, 2, 1, 3, 1, 1, 2, 1, 2]);
        assert_eq!(sizes(&rows, 1, 0), [1; 20]);
        assert_eq!(sizes(&[], 4, 0), [0; 0]);
        let ids = |groups: Vec<&[MemberRow]>| -> Vec<u32> {
            groups.concat().iter().map(|row| row.id.ordinal()).collect()
        };
        assert_eq!(ids(group(&rows, 16, 0)), (0..20).collect::<Vec<_>>());
    }
}
