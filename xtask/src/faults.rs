//! What the fault tests have shown, as a table for `docs/faults.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

/// All trials of one fault.
#[derive(Default)]
struct Total {
    trials: u64,
    sums: [u64; SUMMED.len()],
    worst_recovery_s: f64,
}

/// What is added up, in the order of the columns.
const SUMMED: [&str; 8] =
    ["rounds", "hits", "tasks", "outcomes", "lost", "doubled", "wasted_runs", "unknown_submits"];

/// Adds up the lines of a file of results.
pub(crate) fn table(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut totals: BTreeMap<String, Total> = BTreeMap::new();
    for (n, line) in text.lines().enumerate() {
        let line: Value = serde_json::from_str(line)
            .with_context(|| format!("{}, line {}", path.display(), n + 1))?;
        let fault = line["fault"].as_str().context("a line without `fault`")?;
        let total = totals.entry(fault.to_owned()).or_default();
        total.trials += 1;
        for (sum, key) in total.sums.iter_mut().zip(SUMMED) {
            *sum += line[key].as_u64().with_context(|| format!("{fault}: no number `{key}`"))?;
        }
        let recovery = line["recovery_s"].as_f64().context("a line without `recovery_s`")?;
        total.worst_recovery_s = total.worst_recovery_s.max(recovery);
    }
    let columns: Vec<String> = SUMMED.map(|key| key.replace('_', " ")).into();
    let mut shown = format!("| fault | trials | {} | worst recovery |\n", columns.join(" | "));
    shown += &format!("|---|{}\n", "---|".repeat(SUMMED.len() + 2));
    for (fault, total) in totals {
        let sums: Vec<String> = total.sums.iter().map(u64::to_string).collect();
        let (trials, worst) = (total.trials, total.worst_recovery_s);
        writeln!(shown, "| {fault} | {trials} | {} | {worst:.1} s |", sums.join(" | "))?;
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_are_added_up() {
        let line = |fault: &str, n: u64, s: f64| {
            serde_json::json!({"fault": fault, "rounds": n, "hits": n, "tasks": 1, "outcomes": 2,
                "lost": 0, "doubled": 0, "wasted_runs": 0, "unknown_submits": 1, "recovery_s": s})
        };
        let path = std::env::temp_dir().join(format!("tasker-faults-{}", std::process::id()));
        let lines = [line("F1", 3, 1.0), line("F0", 1, 0.5), line("F1", 4, 0.25)];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, text).expect("written");
        let shown = table(&path).expect("a table");
        fs::write(&path, "{\"fault\": \"F1\"}\n").expect("written");
        let error = table(&path).expect_err("incomplete").to_string();
        fs::remove_file(&path).expect("removed");
        let rows: Vec<&str> = shown.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| F0 | 1 | 1 | 1 | 1 | 2 | 0 | 0 | 0 | 1 | 0.5 s |",
                "| F1 | 2 | 7 | 7 | 2 | 4 | 0 | 0 | 0 | 2 | 1.0 s |"
            ]
        );
        assert!(error.contains("F1: no number `rounds`"), "{error}");
    }
}
