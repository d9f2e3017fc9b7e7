//! What `make bench` has measured, as docs/benchmarks.md.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::{Deserializer, Value};

const HEAD: &str = "# Benchmarks

Written by `make bench`: do not edit. What the figures mean is in [performance.md](performance.md).

Everything runs on one machine: Postgres with `fsync` and `synchronous_commit` on, nats-server with file storage and
its defaults, one orchestrator, one worker of 64 slots, and whoever submits. Each run is checked against the closed
formula of its workload, and `tasker verify` holds the invariants after each workload. Rates and latencies are medians
over the runs, by the clock of whoever submits (from the request until the end is known) and by that of the database
(from the first row to the last change); the range is that of the runs. The floor is the bare pipeline on the same
servers: COPY, publish, pull, one report, insert, acknowledge, with rows as wide as the engine's and no engine. It is
measured again and again, since the machine is shared: what is set beside a workload is the last one before it. The
chain is the same for W3: a stored request, a message, three stored reports, and the answer with the results. Between
two workloads the tables are vacuumed and analyzed, so that none pays for the one before it; what becomes due while a
workload runs is part of it. Before the first one 10,000 steps are run five times and not counted: a new cluster plans
its statements on each of its connections, and takes three times as long. Memory of Postgres is looked at every five
seconds and at the end, that of the others every second.
";

/// Makes the document of a file of reports, one JSON document after the other.
pub(crate) fn write(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let reports = Deserializer::from_str(&text).into_iter::<Value>();
    let reports: Vec<Value> = reports.collect::<Result<_, _>>().context("a report is not JSON")?;
    let target = crate::workspace()?.join("docs/benchmarks.md");
    fs::write(&target, document(&reports, &machine()))?;
    Ok(format!("{} workloads are in docs/benchmarks.md", reports.len()))
}

fn document(reports: &[Value], machine: &str) -> String {
    let mut text = format!("{HEAD}\n{machine}\n\n## Rates\n\n");
    text.push_str("| workload | runs | steps/s | range | by the database | of the floor |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    let mut floor = None;
    for report in reports.iter().filter(|r| r["per_s"].is_f64() && r["workload"] != "w4") {
        if report["workload"] == "floor" {
            floor = report["per_s"].as_f64();
        }
        let share = report["per_s"].as_f64().zip(floor).map(|(own, floor)| own / floor);
        let _infallible = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            name(report),
            runs(report).len(),
            number(&report["per_s"], 0),
            rates(report),
            number(&report["server_per_s"], 0),
            share.map_or_else(String::new, |share| format!("{share:.2}")),
        );
    }
    text.push_str(&latencies(reports));
    text.push_str(&costs(reports));
    text.push_str(&memory(reports));
    text
}

fn latencies(reports: &[Value]) -> String {
    let mut text = "\n## Latencies\n\n".to_owned();
    text.push_str("| workload | p50 ms | p99 ms | p50 by the database | p99 | times the chain |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    let mut chain = None;
    for report in reports.iter().filter(|r| r["p50_ms"].is_f64()) {
        let p50 = report["p50_ms"].as_f64();
        if report["workload"] == "chain" {
            chain = p50;
        }
        let times = p50.zip(chain).filter(|_| report["workload"] == "w3");
        let times = times.map_or_else(String::new, |(own, chain)| format!("{:.2}", own / chain));
        let columns = ["p50_ms", "p99_ms", "server_p50_ms", "server_p99_ms"];
        let columns = columns.map(|key| number(&report[key], 2)).join(" | ");
        let _infallible = writeln!(text, "| {} | {columns} | {times} |", name(report));
    }
    for report in reports.iter().filter(|r| r["workload"] == "w4") {
        let _infallible = writeln!(
            text,
            "\nA batch of 2,000 takes {} s alone and {} s beside one of 100,000: {} times.",
            number(&report["alone_s"], 3),
            number(&report["median_s"], 3),
            number(&report["times_alone"], 2),
        );
    }
    text
}

/// What a step costs on average.
fn costs(reports: &[Value]) -> String {
    let mut text = "\n## What a step costs\n\nMicroseconds of a core by process, and what the servers were asked for.\n\n".to_owned();
    text.push_str("| workload | orchestrator | worker | nats-server | Postgres | bytes of log | statements | outcome transactions | messages sent | delivered |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
    for report in reports.iter().filter(|r| r["per_step"].is_object()) {
        let step = &report["per_step"];
        let cpu = ["orchestrator", "worker", "nats", "postgres"];
        let cpu = cpu.map(|key| number(&step["cpu_us"][key], 1)).join(" | ");
        let _infallible = writeln!(
            text,
            "| {} | {cpu} | {} | {} | {} | {} | {} |",
            name(report),
            number(&step["wal_bytes"], 0),
            number(&step["statements"], 4),
            number(&step["outcome_transactions"], 5),
            number(&step["messages_sent"], 3),
            number(&step["messages_delivered"], 3),
        );
    }
    text
}

fn memory(reports: &[Value]) -> String {
    let mut text =
        "\n## Memory\n\nMiB resident at most, and the size of the database at the end.\n\n"
            .to_owned();
    text.push_str("| workload | orchestrator | worker | nats-server | Postgres | database |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for report in reports {
        let peaks = ["orchestrator", "worker", "nats", "postgres"];
        let peaks = peaks.map(|key| number(&report["peak_rss_mib"][key], 0)).join(" | ");
        let database = number(&report["database_mib"], 0);
        let _infallible = writeln!(text, "| {} | {peaks} | {database} |", name(report));
    }
    text
}

fn name(report: &Value) -> String {
    format!("{} n={}", report["workload"].as_str().unwrap_or("?"), report["n"])
}

fn runs(report: &Value) -> Vec<f64> {
    report["runs_s"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// The slowest and the fastest run, as rates.
fn rates(report: &Value) -> String {
    let (runs, rate) = (runs(report), report["per_s"].as_f64().unwrap_or(0.0));
    let steps = rate * report["median_s"].as_f64().unwrap_or(0.0);
    let slowest = runs.iter().copied().fold(f64::MIN, f64::max);
    let fastest = runs.iter().copied().fold(f64::MAX, f64::min);
    format!("{:.0}–{:.0}", steps / slowest, steps / fastest)
}

fn number(value: &Value, digits: usize) -> String {
    value.as_f64().map_or_else(String::new, |number| format!("{number:.digits$}"))
}

/// The machine and the versions of what runs on it.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let of = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let cpu = of(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = of(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let server = |variable: &str, name: &str| {
        let found = std::env::var(variable).ok().and_then(|path| version(&path));
        found.unwrap_or_else(|| format!("{name} of unknown version"))
    };
    let nats = server("TASKER_NATS_SERVER", "nats-server");
    let postgres = std::env::var("TASKER_POSTGRES_BIN").ok();
    let postgres = postgres.and_then(|bin| version(&format!("{bin}/postgres")));
    let postgres = postgres.unwrap_or_else(|| "Postgres of unknown version".to_owned());
    format!(
        "Machine: {cores} cores of {cpu}, {memory} of memory, shared with others; {postgres}; {nats}."
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_stand_in_their_columns() {
        let floor =
            json!({"workload": "floor", "n": 100, "runs_s": [2.0], "median_s": 2.0, "per_s": 50.0});
        let earlier = json!({"workload": "floor", "n": 100, "runs_s": [1.0], "median_s": 1.0, "per_s": 100.0});
        let chain =
            json!({"workload": "chain", "n": 5, "runs_s": [1.0], "p50_ms": 2.5, "p99_ms": 3.0});
        let w1 = json!({"workload": "w1", "n": 100, "runs_s": [4.0, 5.0, 10.0], "median_s": 5.0,
            "per_s": 20.0, "server_per_s": 21.0, "database_mib": 7.0,
            "peak_rss_mib": {"orchestrator": 50.4},
            "per_step": {"cpu_us": {"orchestrator": 1.0, "worker": 2.0, "nats": 3.0, "postgres": 4.0},
                "wal_bytes": 600.0, "writing_transactions": 0.01}});
        let w3 = json!({"workload": "w3", "n": 5, "runs_s": [1.0], "p50_ms": 4.0, "p99_ms": 9.0,
            "server_p50_ms": 3.0, "server_p99_ms": 8.0});
        let w4 = json!({"workload": "w4", "n": 2000, "runs_s": [0.2], "per_s": 1.0, "median_s": 0.2,
            "alone_s": 0.1, "times_alone": 2.0});
        let text = document(&[earlier, floor, w1, chain, w3, w4], "Machine: m.");
        for line in [
            "Machine: m.",
            "| floor n=100 | 1 | 50 | 50–50 |  | 1.00 |",
            "| w1 n=100 | 3 | 20 | 10–25 | 21 | 0.40 |",
            "| chain n=5 | 2.50 | 3.00 |  |  |  |",
            "| w3 n=5 | 4.00 | 9.00 | 3.00 | 8.00 | 1.60 |",
            "A batch of 2,000 takes 0.100 s alone and 0.200 s beside one of 100,000: 2.00 times.",
            "| w1 n=100 | 1.0 | 2.0 | 3.0 | 4.0 | 600 |  |  |  |  |",
            "| w1 n=100 | 50 |  |  |  | 7 |",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }
}
