use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::median;
use super::resident::Peaks;
use super::skew::Times;
use super::spent::PerStep;
use super::timed::{Timed, server, whole};

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
    /// By the clock of the database: from the first row to the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_p99_ms: Option<f64>,
    /// The same without the other task.
    #[serde(skip_serializing_if = "Option::is_none")]
    alone_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times_alone: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_floor: Option<f64>,
    /// Of the bare chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times_floor: Option<f64>,
    pub(super) peak_rss_mib: Peaks,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) per_step: Option<PerStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) database_mib: Option<f64>,
}

impl Report {
    fn new(workload: &'static str, n: u32, runs_s: Vec<f64>) -> Self {
        Self {
            workload,
            n,
            runs_s,
            median_s: None,
            per_s: None,
            server_per_s: None,
            p50_ms: None,
            p99_ms: None,
            server_p50_ms: None,
            server_p99_ms: None,
            alone_s: None,
            times_alone: None,
            floor_per_s: None,
            ratio_to_floor: None,
            floor_p50_ms: None,
            times_floor: None,
            peak_rss_mib: Peaks::default(),
            per_step: None,
            database_mib: None,
        }
    }

    /// Runs of so many steps each.
    pub(super) fn of_runs(workload: &'static str, n: u32, steps: u64, runs: &[Duration]) -> Self {
        let median_s = median(runs).as_secs_f64();
        Self {
            median_s: Some(median_s),
            per_s: Some((steps as f64 / median_s.max(1e-9)).round()),
            ..Self::new(workload, n, runs.iter().map(Duration::as_secs_f64).collect())
        }
    }

    /// The same of runs whose tasks say when they were made and ended.
    pub(super) fn of_tasks(workload: &'static str, n: u32, steps: u64, runs: &[Timed]) -> Self {
        let by_server = Self::of_runs(workload, n, steps, &server(runs));
        let report = Self::of_runs(workload, n, steps, &whole(runs));
        Self { server_per_s: by_server.per_s, ..report }
    }

    /// One task alone, and beside another one.
    pub(super) fn of_skew(workload: &'static str, n: u32, times: Times) -> Self {
        let alone = median(&times.alone).as_secs_f64();
        let mut report = Self::of_runs(workload, n, u64::from(n), &times.beside);
        report.alone_s = Some(alone);
        report.times_alone = report.median_s.map(|beside| beside / alone.max(1e-9));
        report
    }

    /// Latencies, run by run.
    pub(super) fn of_latencies(workload: &'static str, n: u32, runs: &[Vec<Timed>]) -> Self {
        let all: Vec<Timed> = runs.iter().flatten().copied().collect();
        let [server_p50_ms, server_p99_ms] = percentiles(server(&all));
        let runs: Vec<Vec<Duration>> = runs.iter().map(|run| whole(run)).collect();
        Self { server_p50_ms, server_p99_ms, ..Self::of_times(workload, n, &runs) }
    }

    /// The same of what has no times of a database.
    pub(super) fn of_times(workload: &'static str, n: u32, runs: &[Vec<Duration>]) -> Self {
        let [p50_ms, p99_ms] = percentiles(runs.concat());
        let run = |run: &Vec<Duration>| run.iter().sum::<Duration>().as_secs_f64();
        Self { p50_ms, p99_ms, ..Self::new(workload, n, runs.iter().map(run).collect()) }
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

    /// Sets the latency beside that of the bare chain.
    pub(super) fn compare_latency(&mut self, floor: &Report) {
        self.floor_p50_ms = floor.p50_ms;
        self.times_floor = self.p50_ms.zip(floor.p50_ms).map(|(own, floor)| own / floor.max(1e-9));
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
        say("by the database", self.server_per_s, "steps/s", 0);
        say("p50 by it", self.server_p50_ms, "ms", 2);
        say("p99 by it", self.server_p99_ms, "ms", 2);
        say("alone", self.alone_s, "s", 3);
        say("times alone", self.times_alone, "", 2);
        say("bare pipeline", self.floor_per_s, "steps/s", 0);
        say("of the bare one", self.ratio_to_floor, "", 2);
        say("bare chain", self.floor_p50_ms, "ms", 2);
        say("times the bare", self.times_floor, "", 2);
        let peaks = &self.peak_rss_mib;
        say("orchestrator", peaks.orchestrator, "MiB at most", 0);
        say("worker", peaks.worker, "MiB at most", 0);
        say("nats", peaks.nats, "MiB at most", 0);
        say("postgres", peaks.postgres, "MiB at most", 0);
        say("database", self.database_mib, "MiB", 0);
        let Some(PerStep { cpu_us, .. }) = &self.per_step else { return text };
        let cpu = [
            ("orchestrator", cpu_us.orchestrator),
            ("worker", cpu_us.worker),
            ("nats", cpu_us.nats),
            ("postgres", cpu_us.postgres),
        ];
        text.push_str("\n  a step costs");
        for (name, micros) in cpu {
            let _infallible = write!(text, "\n    {name:<14} {micros:.1} µs of a core");
        }
        text.push_str(&counts(self.per_step.as_ref()));
        text
    }
}

/// What the servers did for each step.
fn counts(per_step: Option<&PerStep>) -> String {
    let Some(step) = per_step else { return String::new() };
    let lines = [
        ("log", Some(step.wal_bytes), "bytes"),
        ("transactions", Some(step.writing_transactions), "that write"),
        ("for outcomes", step.outcome_transactions, "transactions"),
        ("statements", step.statements, ""),
        ("messages", step.messages_sent, "sent"),
        ("", step.messages_delivered, "delivered"),
    ];
    let lines = lines.iter().filter_map(|(name, n, unit)| Some((name, (*n)?, unit)));
    lines.map(|(name, n, unit)| format!("\n    {name:<14} {n:.4} {unit}")).collect()
}

/// The median and the 99th percentile, by the nearest rank: the smallest time that so many of a hundred do
/// not exceed; in milliseconds.
fn percentiles(mut times: Vec<Duration>) -> [Option<f64>; 2] {
    times.sort_unstable();
    [50, 99].map(|percent| {
        let rank = (times.len() * percent).div_ceil(100).max(1) - 1;
        times.get(rank).map(|time| time.as_secs_f64() * 1_000.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let time =
            |ms| Timed { whole: Duration::from_millis(2 * ms), server: Duration::from_millis(ms) };
        let report = Report::of_latencies("w3", 200, &[(1..=200).map(time).collect()]);
        assert_eq!((report.p50_ms, report.p99_ms), (Some(200.0), Some(396.0)));
        assert_eq!((report.server_p50_ms, report.server_p99_ms), (Some(100.0), Some(198.0)));
        assert_eq!(percentiles(Vec::new()), [None, None]);
    }

    #[test]
    fn a_rate_is_that_of_the_median_run() {
        let runs = [3, 1, 2].map(Duration::from_secs);
        let mut report = Report::of_runs("w1", 10, 100, &runs);
        assert_eq!((report.median_s, report.per_s), (Some(2.0), Some(50.0)));
        report.compare(&Report::of_runs("floor", 10, 100, &[Duration::from_secs(1)]));
        assert_eq!(report.ratio_to_floor, Some(0.5));
    }
}
