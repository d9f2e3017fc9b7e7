//! The rules of the house: who may depend on whom, and what stands nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{run, workspace};

/// A crate and what must not be in its dependency tree, however far down.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    ("tasker-messages", &["tokio", "sqlx", "async-nats", "ractor"]),
    ("tasker-workflow", &["tokio", "sqlx", "async-nats", "ractor"]),
    ("tasker-sdk", &["sqlx", "async-nats", "ractor"]),
    ("tasker-worker-node", &["sqlx"]),
];

/// A library and the only crates that may name it.
const RESERVED: [(&str, &[&str]); 3] =
    [("sqlx", &["tasker-store"]), ("async-nats", &["tasker-bus"]), ("ractor", &["tasker-actors"])];

/// Crates from the bottom of the house to its top: none depends on one above it.
const ORDER: [&[&str]; 8] = [
    &["tasker-guards", "tasker-messages"],
    &["tasker-workflow", "tasker-sdk"],
    &["tasker-config", "tasker-examples"],
    &["tasker-store", "tasker-bus"],
    &["tasker-actors"],
    &["tasker-orchestrator-node", "tasker-worker-node"],
    &["tasker"],
    &["tasker-tests"],
];

/// Checks everything; lists all that is wrong.
pub(crate) fn check() -> anyhow::Result<String> {
    let mut wrong = Vec::new();
    check_reserved_and_order(&mut wrong)?;
    check_trees(&mut wrong)?;
    crate::reference::check(&mut wrong)?;
    crate::keys::check(&mut wrong)?;
    crate::migrations::check(&mut wrong)?;
    crate::mutants::check(&mut wrong)?;
    crate::reference::check_guide(&mut wrong)?;
    let files = check_files(&mut wrong)?;
    if wrong.is_empty() {
        return Ok(format!(
            "house in order: {files} source files, {} rules of dependence",
            FORBIDDEN.len() + RESERVED.len() + 1
        ));
    }
    bail!("{} rule(s) broken:\n  {}", wrong.len(), wrong.join("\n  "))
}

fn check_reserved_and_order(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let direct = direct_dependencies()?;
    let floor = |name: &str| ORDER.iter().position(|floor| floor.contains(&name));
    for (krate, dependencies) in &direct {
        for dependency in dependencies {
            let allowed = RESERVED.iter().find(|(library, _)| library == dependency);
            if allowed.is_some_and(|(_, crates)| !crates.contains(&krate.as_str())) {
                wrong.push(format!("{krate} names {dependency}, which is reserved"));
            }
            if let (Some(low), Some(high)) = (floor(krate), floor(dependency))
                && high > low
            {
                wrong.push(format!("{krate} depends on {dependency}, which is above it"));
            }
        }
    }
    for name in ORDER.iter().flat_map(|floor| floor.iter()) {
        if !direct.contains_key(*name) {
            wrong.push(format!("{name} is in the plan of the house but not in the workspace"));
        }
    }
    Ok(())
}

/// What each crate of the workspace names in its manifest, tests left out.
fn direct_dependencies() -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"]);
    let metadata: Value = serde_json::from_str(&run(cargo.current_dir(workspace()?))?)?;
    let mut direct = BTreeMap::new();
    for package in metadata["packages"].as_array().context("cargo metadata lists no packages")? {
        let name = package["name"].as_str().context("a package has no name")?.to_owned();
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let named = dependencies
            .filter(|d| d["kind"].as_str() != Some("dev"))
            .filter_map(|d| d["name"].as_str().map(str::to_owned));
        direct.insert(name, named.collect());
    }
    Ok(direct)
}

fn check_trees(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    for (krate, forbidden) in FORBIDDEN {
        let mut cargo = Command::new("cargo");
        cargo.args([
            "tree",
            "-p",
            krate,
            "-e",
            "normal",
            "--prefix",
            "none",
            "--locked",
            "--offline",
        ]);
        let tree = run(cargo.current_dir(workspace()?))?;
        let names: BTreeSet<&str> =
            tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
        for name in forbidden.iter().filter(|name| names.contains(**name)) {
            wrong.push(format!("{krate} has {name} in its dependency tree"));
        }
    }
    Ok(())
}

/// Words that stand in no committed file: paths of a developer's machine.
fn machine_paths() -> [String; 2] {
    // Put together, so that this file does not hold them.
    [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat()]
}

fn check_files(wrong: &mut Vec<String>) -> anyhow::Result<usize> {
    let top = workspace()?;
    let listed = run(Command::new("git").args(["ls-files", "-z"]).current_dir(&top))?;
    let mut sources = 0;
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let path = PathBuf::from(name);
        let Ok(text) = fs::read_to_string(top.join(&path)) else { continue };
        for word in machine_paths() {
            if text.contains(&word) {
                wrong.push(format!("{name}: holds the path `{word}` of one machine"));
            }
        }
        if path.extension().is_some_and(|e| e == "rs") {
            sources += 1;
            check_source(&path, &text, wrong);
        }
    }
    Ok(sources)
}

/// Longest source file without its tests, in lines.
const MAX_LINES: usize = 450;

fn check_source(path: &Path, text: &str, wrong: &mut Vec<String>) {
    let name = path.display();
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().count();
    let is_test = path.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "it");
    if lines > MAX_LINES && !is_test {
        wrong.push(format!("{name}: {lines} lines are more than {MAX_LINES}"));
    }
    if path.starts_with("store") || path.starts_with("tests") || path.starts_with("xtask") {
        return;
    }
    for (n, line) in code.lines().enumerate() {
        let line = line.trim_start().trim_start_matches(['"', '(']).to_ascii_lowercase();
        let is_sql = ["select ", "insert into ", "update tasker", "delete from "];
        if is_sql.iter().any(|word| line.starts_with(word)) {
            wrong.push(format!("{name}:{}: SQL outside of store", n + 1));
        }
    }
}
