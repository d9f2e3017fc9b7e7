//! The progress of batches in numbers: what both displays of `watch` show.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tasker_messages::{BatchId, BatchState, BatchView, TaskSummary};
use tokio::time::Instant;

/// The rate is that of the last few seconds.
const WINDOW: Duration = Duration::from_secs(5);

/// One batch at one time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) batch: BatchId,
    pub(super) name: String,
    pub(super) done: u32,
    pub(super) expected: u32,
    pub(super) failed: u32,
    pub(super) state: BatchState,
    /// Members per second; 0 before anything was seen to move.
    pub(super) per_second: f64,
    /// How long the rest takes at this rate.
    pub(super) left: Option<Duration>,
}

/// Remembers recent counts of each batch.
#[derive(Debug, Default)]
pub(super) struct Progress {
    seen: HashMap<BatchId, VecDeque<(Instant, u32)>>,
}

impl Progress {
    /// Takes note of a summary and says what to show.
    pub(super) fn observe(&mut self, summary: &TaskSummary, now: Instant) -> Vec<Line> {
        summary.batches.iter().map(|batch| self.line(batch, now)).collect()
    }

    fn line(&mut self, batch: &BatchView, now: Instant) -> Line {
        let done = batch.succeeded + batch.failed;
        let seen = self.seen.entry(batch.id).or_default();
        seen.push_back((now, done));
        // The oldest count just outside the window stays: the rate then spans the whole window.
        while seen.get(1).is_some_and(|&(at, _)| now.duration_since(at) >= WINDOW) {
            seen.pop_front();
        }
        let per_second = rate(seen);
        Line {
            batch: batch.id,
            name: batch.worker_template.clone(),
            done,
            expected: batch.expected,
            failed: batch.failed,
            state: batch.state,
            per_second,
            left: time_left(batch.remaining, per_second),
        }
    }
}

fn rate(seen: &VecDeque<(Instant, u32)>) -> f64 {
    let (Some(&(from, before)), Some(&(to, after))) = (seen.front(), seen.back()) else {
        return 0.0;
    };
    let seconds = to.duration_since(from).as_secs_f64();
    // A repair may take a finished member back.
    if seconds > 0.0 { f64::from(after.saturating_sub(before)) / seconds } else { 0.0 }
}

fn time_left(remaining: u32, per_second: f64) -> Option<Duration> {
    if remaining == 0 || per_second <= 0.0 {
        return None;
    }
    Duration::try_from_secs_f64(f64::from(remaining) / per_second).ok()
}

impl Line {
    /// What stands behind the counts.
    pub(super) fn details(&self) -> String {
        // Workers that run for long still move; a whole number would show them as standing.
        let digits = usize::from(self.per_second > 0.0 && self.per_second < 10.0);
        let mut text = format!("{} failed  {:.digits$}/s", self.failed, self.per_second);
        if let Some(left) = self.left {
            text.push_str(&format!("  {} left", short(left)));
        }
        if !matches!(self.state, BatchState::Sealed) {
            text.push_str(&format!("  {}", self.state));
        }
        text
    }
}

fn short(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary(done: u32, failed: u32) -> TaskSummary {
        let id = "0190a0a0-0000-7000-8000-000000000000";
        serde_json::from_value(json!({
            "id": id, "namespace": "n", "name": "t", "version": "1", "state": "in_progress",
            "created_at": "", "batches": [{"id": id, "batchable_step": "a",
                "worker_template": "w", "state": "sealed", "expected": 100, "published": 100,
                "succeeded": done, "failed": failed, "remaining": 100 - done - failed,
                "is_no_op": false}],
        }))
        .expect("a summary")
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut progress = Progress::default();
        let start = Instant::now();
        let mut at = |second: u64, done: u32, failed: u32| {
            let now = start + Duration::from_secs(second);
            let line = progress.observe(&summary(done, failed), now).remove(0);
            (line.done, line.per_second, line.details())
        };
        assert_eq!(at(0, 0, 0), (0, 0.0, "0 failed  0/s".to_owned()));
        assert_eq!(at(1, 10, 0), (10, 10.0, "0 failed  10/s  9 s left".to_owned()));
        assert_eq!(at(2, 19, 1), (20, 10.0, "1 failed  10/s  8 s left".to_owned()));
        // 20 -> 45 in the five seconds from 2 to 7.
        assert_eq!(at(7, 44, 1).1, 5.0);
        assert_eq!(at(8, 99, 1), (100, 80.0 / 6.0, "1 failed  13/s".to_owned()));
    }
}
