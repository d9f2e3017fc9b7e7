//! Workload `csv_profile`: a file of any size, by ranges of rows that workers seek.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tasker_tests::{Api, Cluster, Process, Task, assert_same, data_file, example, expected};

use crate::support::{SOON, ended_batch, without};

async fn profile(api: &Api, context: Value) -> anyhow::Result<Task> {
    let task = api.run("csv_processing", "csv_profile", context, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    Ok(task)
}

#[tokio::test]
async fn the_weather_of_a_year() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let context = json!({"csv_file_path": example("weather.csv"), "rows_per_batch": 500, "group_by": "origin"});
    let task = profile(&cluster.api()?, context).await?;
    assert_same(task.result("merge_profiles")?, &expected("weather.expected.json")?, &[]);
    assert_eq!(task.steps().len(), 55);
    let batch = ended_batch("analyze_csv", "profile_csv_batch", 53, 0);
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    // The ranges follow each other from the first byte behind the header to the end of the file.
    let size = std::fs::metadata(data_file("weather.csv"))?.len();
    let mut at = json!({"row": 0, "byte": 105});
    for n in 1..=53 {
        let step = task.step(&format!("profile_csv_batch_{n:03}"))?;
        let cursor = &step["inputs"]["cursor"];
        let rows: u64 = if n < 53 { 500 } else { 115 };
        assert_eq!((&cursor["start_cursor"], &cursor["batch_size"]), (&at, &json!(rows)), "{n}");
        let result = &step["results"]["result"];
        assert_eq!((&result["rows"], &result["start_row"]), (&json!(rows), &at["row"]), "{n}");
        at = cursor["end_cursor"].clone();
        assert_eq!(result["end_row"], at["row"], "{n}");
    }
    assert_eq!(at, json!({"row": 26_115, "byte": size}));
    Ok(())
}

/// One column, added up from the values themselves and not from a file.
#[derive(Default)]
struct Column {
    count: u64,
    missing: u64,
    /// Value and row.
    numbers: Vec<(f64, u64)>,
}

impl Column {
    fn add(&mut self, row: u64, field: &str) {
        match (field, field.parse()) {
            ("" | "NA", _) => self.missing += 1,
            (_, Ok(value)) => {
                self.count += 1;
                self.numbers.push((value, row));
            }
            _ => self.count += 1,
        }
    }

    fn profile(&self) -> Value {
        let numeric = self.numbers.len();
        let mut profile = json!({"count": self.count, "missing": self.missing, "numeric": numeric});
        let first_where = |best: fn(f64, f64) -> bool| {
            let better = |a: (f64, u64), b: &(f64, u64)| if best(b.0, a.0) { *b } else { a };
            self.numbers.iter().fold(None, |a, b| Some(a.map_or(*b, |a| better(a, b))))
        };
        if let (Some(min), Some(max)) = (first_where(|a, b| a < b), first_where(|a, b| a > b)) {
            let sum: f64 = self.numbers.iter().map(|(value, _)| value).sum();
            profile["min"] = json!(min.0);
            profile["min_row"] = json!(min.1);
            profile["max"] = json!(max.0);
            profile["max_row"] = json!(max.1);
            profile["sum"] = json!(sum);
            profile["mean"] = json!(sum / numeric as f64);
        }
        profile
    }
}

fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

/// Rows whose fields hold whatever separates rows and fields. Amounts are quarters, so that their
/// sum is exact.
fn awkward_rows(rows: u64) -> Vec<[String; 5]> {
    let row = |n: u64| {
        let note = match n % 4 {
            0 => format!("line one\nline \"two\" of {n}\n\n"),
            1 => format!("a, b, {n}\r\n"),
            2 => "\"".repeat(3),
            _ => String::new(),
        };
        let gap = if n.is_multiple_of(5) { "NA".to_owned() } else { (n % 7).to_string() };
        let group = ["red", "green, dark", "blue\nnavy"][(n % 3) as usize];
        let amount = format!("{:.2}", n as f64 * 0.25 - 100.0);
        [n.to_string(), amount, note, gap, group.to_owned()]
    };
    (0..rows).map(row).collect()
}

#[tokio::test]
async fn records_with_line_breaks_quotes_and_commas() -> anyhow::Result<()> {
    const NAMES: [&str; 5] = ["id", "amount", "note, or \"none\"", "gap", "group\nname"];
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let rows = awkward_rows(2_000);
    let mut columns: [Column; 5] = Default::default();
    let mut groups: BTreeMap<&str, u64> = BTreeMap::new();
    for (n, row) in (0..).zip(&rows) {
        columns.iter_mut().zip(row).for_each(|(column, field)| column.add(n, field));
        *groups.entry(&row[4]).or_default() += 1;
    }
    let profiles: Map<String, Value> =
        NAMES.iter().zip(&columns).map(|(name, c)| ((*name).to_owned(), c.profile())).collect();
    for (line_end, rows_per_batch, workers) in [("\n", 64, 32), ("\r\n", 7, 286), ("\n", 5_000, 1)]
    {
        let mut text = NAMES.map(quoted).join(",");
        for row in &rows {
            text.push_str(line_end);
            text.push_str(&row.each_ref().map(|field| quoted(field)).join(","));
        }
        // Without an end of the last line.
        let path = cluster.scratch().write(&format!("awkward-{rows_per_batch}.csv"), text)?;
        let context = json!({"csv_file_path": path, "rows_per_batch": rows_per_batch,
            "group_by": NAMES[4]});
        let task = profile(&api, context).await?;
        let expect =
            json!({"rows": 2_000, "columns": profiles, "groups": groups, "worker_count": workers});
        assert_same(task.result("merge_profiles")?, &expect, &[]);
    }
    Ok(())
}

#[tokio::test]
async fn no_rows_still_have_columns() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let path = cluster.scratch().write("no-rows.csv", "a,b\n")?;
    let task = profile(&cluster.api()?, json!({"csv_file_path": path})).await?;
    let none = json!({"count": 0, "missing": 0, "numeric": 0});
    let expect = json!({"rows": 0, "columns": {"a": none, "b": none}, "worker_count": 0});
    assert_same(task.result("merge_profiles")?, &expect, &[]);
    assert_eq!(task.step_names(), ["analyze_csv", "merge_profiles", "profile_csv_batch_000"]);
    Ok(())
}

/// 31 MB.
const LARGE_ROWS: u64 = 336_776;
/// What a worker may have resident at most.
const WORKER_MIB: f64 = 150.0;
/// What an orchestrator may have resident at most.
const ORCHESTRATOR_MIB: f64 = 200.0;

fn large_file() -> String {
    let mut text = "id,thousandth,text,gap\n".to_owned();
    let padding = "x".repeat(79);
    for n in 0..LARGE_ROWS {
        let gap = if n.is_multiple_of(7) { "NA" } else { "1" };
        let _infallible = writeln!(text, "{n},{},{padding},{gap}", n % 1_000);
    }
    text
}

#[tokio::test]
async fn a_large_file_needs_little_memory() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    let text = large_file();
    assert_eq!(text.len() / 1_000_000, 31, "{} bytes", text.len());
    let path = cluster.scratch().write("large.csv", text)?;
    let context = json!({"csv_file_path": path, "rows_per_batch": 1_000});
    let api = cluster.api()?;
    let limit = Duration::from_secs(120);
    let task = api.run("csv_processing", "csv_profile", context, limit).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let (n, missing) = (LARGE_ROWS, LARGE_ROWS.div_ceil(7));
    let (thousands, rest) = (n / 1_000, n % 1_000);
    let id_sum = (n * (n - 1) / 2) as f64;
    let thousandth_sum = (thousands * 499_500 + rest * (rest - 1) / 2) as f64;
    let ones = (n - missing) as f64;
    let expect = json!({
        "rows": n,
        "columns": {
            "id": {"count": n, "missing": 0, "numeric": n, "min": 0.0, "max": (n - 1) as f64,
                "min_row": 0, "max_row": n - 1, "sum": id_sum, "mean": id_sum / n as f64},
            "thousandth": {"count": n, "missing": 0, "numeric": n, "min": 0.0, "max": 999.0,
                "min_row": 0, "max_row": 999, "sum": thousandth_sum,
                "mean": thousandth_sum / n as f64},
            "text": {"count": n, "missing": 0, "numeric": 0},
            "gap": {"count": n - missing, "missing": missing, "numeric": n - missing, "min": 1.0,
                "max": 1.0, "min_row": 1, "max_row": 1, "sum": ones, "mean": 1.0},
        },
        "worker_count": 337,
    });
    assert_same(task.result("merge_profiles")?, &expect, &[]);
    let pids = cluster.state()?.pids;
    let bounds = [(pids.workers[0], WORKER_MIB), (pids.orchestrators[0], ORCHESTRATOR_MIB)];
    for (pid, most) in bounds {
        let peak = Process::running(pid)?.peak_rss_mib()?;
        assert!(peak < most, "{peak:.0} MiB are more than {most}");
    }
    Ok(())
}
