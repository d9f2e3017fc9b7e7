//! How often each fault is made to happen, and what came of it.
//!
//! `make test` does a few rounds. With `TASKER_FAULTS_RESULTS`, a file that `make faults` names, a trial
//! does as many as are still missing there, and adds a line of what it has shown. So it can be broken off
//! and goes on where it was.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

use super::trial::Rounds;

fn file() -> Option<PathBuf> {
    std::env::var_os("TASKER_FAULTS_RESULTS").map(PathBuf::from)
}

/// How many rounds this trial has; `None` if all are done.
pub(super) fn rounds_to_do(name: &str, rounds: Rounds) -> anyhow::Result<Option<u64>> {
    let Some(path) = file() else { return Ok((rounds.few > 0).then_some(rounds.few)) };
    let text = if path.exists() { fs::read_to_string(&path)? } else { String::new() };
    let mut done = 0;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| path.display().to_string())?;
        let was_right = line["lost"] == 0 && line["doubled"] == 0;
        if line["fault"] == name && was_right {
            done += line["rounds"].as_u64().unwrap_or(0);
        }
    }
    let left = rounds.all.saturating_sub(done);
    Ok((left > 0).then(|| left.min(rounds.at_a_time)))
}

/// Adds what one trial has shown, right or wrong.
pub(super) fn record(name: &str, what: &Value) -> anyhow::Result<()> {
    let mut line = what.clone();
    line["fault"] = name.into();
    #[expect(clippy::print_stdout, reason = "shown by --nocapture and with a test that fails")]
    {
        println!("{line}");
    }
    let Some(path) = file() else { return Ok(()) };
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    writeln!(file, "{line}").with_context(|| path.display().to_string())
}
