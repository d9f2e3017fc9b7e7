//! Checks and chores of the workspace: `cargo run -p xtask -- check`.

mod benchmarks;
mod faults;
mod house;
mod keys;
mod migrations;
mod mutants;
mod queries;
mod reference;
mod sbom;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

const USAGE: &str = "usage: cargo run -p xtask -- COMMAND

  check             the rules of the house that the compiler does not keep
  benchmarks FILE   what `make bench` has measured, into docs/benchmarks.md
  faults FILE       what the fault tests have shown, as a table
  sbom FILE         what the shipped programs are made of, as CycloneDX
  prepare-queries   describe all SQL again into store/.sqlx (needs DATABASE_URL and psql;
                    `make queries` provides both)";

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some("check") => house::check(),
        Some("faults") => match std::env::args_os().nth(2) {
            Some(path) => faults::table(path.as_ref()),
            None => Err(anyhow::anyhow!(USAGE)),
        },
        Some("benchmarks") => match std::env::args_os().nth(2) {
            Some(path) => benchmarks::write(path.as_ref()),
            None => Err(anyhow::anyhow!(USAGE)),
        },
        Some("sbom") => match std::env::args_os().nth(2) {
            Some(path) => sbom::write(path.as_ref()),
            None => Err(anyhow::anyhow!(USAGE)),
        },
        Some("prepare-queries") => queries::prepare(),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match result {
        Ok(said) => {
            say(&said);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a chore talks to whoever runs it")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// The top folder of the workspace.
fn workspace() -> anyhow::Result<PathBuf> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).context("xtask has no parent folder")
}

/// Runs a program to its end.
fn run(command: &mut std::process::Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run `{program}`"))?;
    if !output.status.success() {
        bail!("`{program}` failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
