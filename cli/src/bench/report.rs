use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::median;
use super::resident::Peaks;
use super::skew::Times;

/// What a benchmark has to say. Parts that do not apply are left out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) workload: &'static str,
    n: u32,
    runs_s: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    median_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    /// The same without the other task.
    #[serde(skip_serializing_if = "Option::is_none")]
    alone_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times_alone: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_floor: Option<f64>,
    pub(super) peak_rss_mib: Peaks,
}

impl Report {
    /// Runs of so many steps each.
    pub(super) fn of_runs(workload: &'static str, n: u32, steps: u64, runs: Vec<Duration>) -> Self {
        let median_s = median(&runs).as_secs_f64();
        Self {
            workload,
            n,
            runs_s: runs.iter().map(Duration::as_secs_f64).collect(),
            median_s: Some(median_s),
            per_s: Some((steps as f64 / median_s.max(1e-9)).round()),
            p50_ms: None,
            p99_ms: None,
            alone_s: None,
            times_alone: None,
            floor_per_s: None,
            ratio_to_floor: None,
            peak_rss_mib: Peaks::default(),
        }
    }

    /// One task alone, and beside another one.
    pub(super) fn of_skew(workload: &'static str, n: u32, times: Times) -> Self {
        let alone = median(&times.alone).as_secs_f64();
        let mut report = Self::of_runs(workload, n, u64::from(n), times.beside);
        report.alone_s = Some(alone);
        report.times_alone = report.median_s.map(|beside| beside / alone.max(1e-9));
        report
    }

    /// Latencies, run by run.
    pub(super) fn of_latencies(workload: &'static str, n: u32, runs: Vec<Vec<Duration>>) -> Self {
        let ms = |d: Duration| d.as_secs_f64() * 1_000.0;
        let mut all: Vec<Duration> = runs.iter().flatten().copied().collect();
        all.sort_unstable();
        // The nearest rank: the smallest time that so many of a hundred do not exceed.
        let rank =
            |percent: usize| all.get((all.len() * percent).div_ceil(100).max(1) - 1).copied();
        Self {
            workload,
            n,
            runs_s: runs.iter().map(|run| run.iter().sum::<Duration>().as_secs_f64()).collect(),
            median_s: None,
            per_s: None,
            p50_ms: rank(50).map(ms),
            p99_ms: rank(99).map(ms),
            alone_s: None,
            times_alone: None,
            floor_per_s: None,
            ratio_to_floor: None,
            peak_rss_mib: Peaks::default(),
        }
    }

    /// Sets the rate beside that of the bare pipeline.
    pub(super) fn compare(&mut self, floor: &Report) {
        self.floor_per_s = floor.per_s;
        self.ratio_to_floor = match (self.per_s, floor.per_s) {
            (Some(own), Some(floor)) if floor > 0.0 => {
                Some((own / floor * 1_000.0).round() / 1_000.0)
            }
            _ => None,
        };
    }

    pub(super) fn table(&self) -> String {
        let mut text = format!("{} n={} runs={}", self.workload, self.n, self.runs_s.len());
        let mut say = |name: &str, value: Option<f64>, unit: &str, digits: usize| {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _infallible = write!(text, "\n  {name:<16} {value:.digits$} {unit}");
            }
        };
        say("median", self.median_s, "s", 3);
        say("rate", self.per_s, "steps/s", 0);
        say("p50", self.p50_ms, "ms", 2);
        say("p99", self.p99_ms, "ms", 2);
        say("alone", self.alone_s, "s", 3);
        say("times alone", self.times_alone, "", 2);
        say("bare pipeline", self.floor_per_s, "steps/s", 0);
        say("of the bare one", self.ratio_to_floor, "", 2);
        let peaks = &self.peak_rss_mib;
        say("orchestrator", peaks.orchestrator, "MiB at most", 0);
        say("worker", peaks.worker, "MiB at most", 0);
        say("nats", peaks.nats, "MiB at most", 0);
        say("postgres", peaks.postgres, "MiB at most", 0);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        let report = Report::of_latencies("w3", 200, vec![times]);
        assert_eq!((report.p50_ms, report.p99_ms), (Some(100.0), Some(198.0)));
    }

    #[test]
    fn a_rate_is_that_of_the_median_run() {
        let runs = [3, 1, 2].map(Duration::from_secs).to_vec();
        let mut report = Report::of_runs("w1", 10, 100, runs);
        assert_eq!((report.median_s, report.per_s), (Some(2.0), Some(50.0)));
        report.compare(&Report::of_runs("floor", 10, 100, vec![Duration::from_secs(1)]));
        assert_eq!(report.ratio_to_floor, Some(0.5));
    }
}
