//! Cursor ranges: how a data set is cut into batches.
//!
//! The arithmetic serves the analyzer in the SDK and the orchestrator, which makes the same ranges
//! from the short form [`crate::CursorRange`].

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One range of a batch: start inclusive, end exclusive.
///
/// A cursor is any JSON value: an integer, a UUID, a timestamp, a key, a composite object. Library
/// cursors are 0-indexed integers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CursorConfig {
    /// Unique within the batch, zero-padded to at least three digits when made here.
    pub batch_id: String,
    /// The first position of the range.
    pub start_cursor: Value,
    /// The position after the last.
    pub end_cursor: Value,
    /// How many items the range holds, as far as the analyzer knows.
    pub batch_size: u32,
}

/// The identifier of the batch with this 0-based ordinal: `001`, `002`, …
pub fn batch_id(ordinal: u32) -> String {
    format!("{:03}", u64::from(ordinal) + 1)
}

/// The name of a member: `<template>_<batch_id>`.
pub fn member_name(worker_template: &str, batch_id: &str) -> String {
    format!("{worker_template}_{batch_id}")
}

/// The `batch_id` of the one placeholder that runs when there are no batches.
pub const NO_OP_BATCH_ID: &str = "000";

/// An integer range in equal pieces. Its ranges cover `[start, end)` exactly; none is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    start: u64,
    total: u64,
    count: u32,
    layout: Layout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Pieces of this size; the last one may be shorter.
    BySize(u64),
    /// Sizes differ by at most one, longer ones first.
    Even,
}

impl Pieces {
    /// Cuts `total` items into `count` pieces whose sizes differ by at most one. Fewer pieces are
    /// made when there are fewer items than pieces.
    pub fn even(total: u64, count: u32) -> Self {
        let count = total.min(u64::from(count)) as u32;
        Self { start: 0, total, count, layout: Layout::Even }
    }

    /// Cuts `[start, end)` into pieces of `batch_size`, the last one shorter. If that makes more
    /// than `max_batches` pieces, the pieces are made larger; the tail is never dropped.
    ///
    /// A `batch_size` or `max_batches` of 0 counts as 1.
    pub fn by_size(start: u64, end: u64, batch_size: u64, max_batches: u32) -> Self {
        let total = end.saturating_sub(start);
        let smallest = total.div_ceil(u64::from(max_batches.max(1)));
        let size = batch_size.max(1).max(smallest);
        let count = total.div_ceil(size) as u32;
        Self { start, total, count, layout: Layout::BySize(size) }
    }

    /// How many pieces there are.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The bounds of one piece. The ordinal must be below [`Self::count`].
    pub fn bounds(&self, ordinal: u32) -> (u64, u64) {
        debug_assert!(ordinal < self.count, "piece {ordinal} of {}", self.count);
        let n = u64::from(ordinal);
        let (low, high) = match self.layout {
            Layout::BySize(size) => (n * size, ((n + 1).saturating_mul(size)).min(self.total)),
            Layout::Even => {
                let (each, longer) =
                    (self.total / u64::from(self.count), self.total % u64::from(self.count));
                let low = n * each + n.min(longer);
                (low, low + each + u64::from(n < longer))
            }
        };
        (self.start + low, self.start + high)
    }

    /// One piece as a cursor range.
    pub fn config(&self, ordinal: u32) -> CursorConfig {
        let (low, high) = self.bounds(ordinal);
        CursorConfig {
            batch_id: batch_id(ordinal),
            start_cursor: low.into(),
            end_cursor: high.into(),
            batch_size: u32::try_from(high - low).unwrap_or(u32::MAX),
        }
    }

    /// All pieces as cursor ranges.
    pub fn configs(&self) -> Vec<CursorConfig> {
        (0..self.count).map(|ordinal| self.config(ordinal)).collect()
    }
}

/// Ranges over `[0, total_items)` for a given number of workers.
pub fn create_cursor_configs(total_items: u64, worker_count: u32) -> Vec<CursorConfig> {
    Pieces::even(total_items, worker_count).configs()
}

/// Ranges over `[0, total_items)` of a given size, at most `max_batches` of them.
pub fn create_cursor_ranges(
    total_items: u64,
    batch_size: u64,
    max_batches: u32,
) -> Vec<CursorConfig> {
    Pieces::by_size(0, total_items, batch_size, max_batches).configs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: Pieces, expect: &[(u64, u64)]) {
        let bounds: Vec<_> = (0..pieces.count()).map(|n| pieces.bounds(n)).collect();
        assert_eq!(bounds, expect, "{pieces:?}");
    }

    #[test]
    fn pieces() {
        check(Pieces::even(0, 3), &[]);
        check(Pieces::even(2, 5), &[(0, 1), (1, 2)]);
        check(Pieces::even(1001, 2), &[(0, 501), (501, 1001)]);
        check(Pieces::even(7, 0), &[]);
        check(Pieces::by_size(0, 0, 10, 10), &[]);
        check(Pieces::by_size(0, 25, 10, 10), &[(0, 10), (10, 20), (20, 25)]);
        check(Pieces::by_size(0, 25, 10, 2), &[(0, 13), (13, 25)]);
        check(Pieces::by_size(5, 8, 1, 100), &[(5, 6), (6, 7), (7, 8)]);
        check(Pieces::by_size(0, 3, 0, 0), &[(0, 3)]);
        check(Pieces::by_size(9, 3, 5, 5), &[]);
    }

    #[test]
    fn pieces_cover_everything_without_gaps() {
        for total in (0..200).chain([1_000_003, u64::from(u32::MAX) * 5]) {
            for (size, most) in [(1, 7), (3, 1000), (1000, 10), (u64::MAX, 3)] {
                for pieces in [Pieces::even(total, most), Pieces::by_size(0, total, size, most)] {
                    let mut at = 0;
                    for n in 0..pieces.count() {
                        let (low, high) = pieces.bounds(n);
                        assert!(low == at && high > low, "{pieces:?} at {n}");
                        at = high;
                    }
                    assert_eq!(at, total, "{pieces:?}");
                    assert!(pieces.count() <= most);
                }
            }
        }
    }

    #[test]
    fn identifiers_are_padded() {
        assert_eq!([0, 9, 999].map(batch_id), ["001", "010", "1000"]);
        assert_eq!(member_name("process_csv_batch", "001"), "process_csv_batch_001");
    }
}
