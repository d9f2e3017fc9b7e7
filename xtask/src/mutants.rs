//! Guards that can be switched off are for `make mutants` alone: no default, no other feature, no
//! dependency and no other script turns them on.

use std::fs;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::{run, workspace};

const FEATURE: &str = "mutants";

/// What builds with the feature, on purpose.
const BUILDER: &str = "scripts/mutants";

const PANIC_POINTS: &str = "guards/src/panics.rs";

/// Files that say how to build, beside all of these folders.
const BUILDS: [&str; 3] = ["Makefile", "docker-compose.yml", "README.md"];
const FOLDERS: [&str; 3] = ["scripts/", "docker/", ".ci/"];

pub(crate) fn check(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    check_manifests(wrong)?;
    check_loops(wrong)?;
    let listed = run(Command::new("git").args(["ls-files", "-z"]).current_dir(workspace()?))?;
    let in_folder = |name: &str| FOLDERS.iter().any(|folder| name.starts_with(folder));
    let is_build = |name: &&str| *name != BUILDER && (BUILDS.contains(name) || in_folder(name));
    for name in listed.split('\0').filter(is_build) {
        let Ok(text) = fs::read_to_string(workspace()?.join(name)) else { continue };
        if text.lines().any(turns_it_on) {
            wrong.push(format!("{name}: builds with the feature `{FEATURE}`"));
        }
    }
    Ok(())
}

fn turns_it_on(line: &str) -> bool {
    line.contains("--all-features") || line.contains("features") && line.contains(FEATURE)
}

fn check_manifests(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"]);
    let metadata: Value = serde_json::from_str(&run(cargo.current_dir(workspace()?))?)?;
    let names = |list: &Value, what: &str| {
        let names = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        names.filter(|name| name.rsplit('/').next() == Some(what)).count() > 0
    };
    for package in metadata["packages"].as_array().context("cargo metadata lists no packages")? {
        let krate = package["name"].as_str().unwrap_or_default();
        for (feature, turns_on) in package["features"].as_object().into_iter().flatten() {
            if feature != FEATURE && names(turns_on, FEATURE) {
                wrong.push(format!("{krate}: its feature `{feature}` turns `{FEATURE}` on"));
            }
        }
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if names(&dependency["features"], FEATURE) {
                wrong.push(format!("{krate}: a dependency has `{FEATURE}` on"));
            }
        }
    }
    Ok(())
}

/// Every loop that an actor looks after can be made to panic: F19 tries them all, and a build for mutants ends
/// a loop that is not in the list.
fn check_loops(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let list = fs::read_to_string(workspace()?.join(PANIC_POINTS))?;
    let mut files = Command::new("git");
    files.args(["ls-files", "-z", "actors/src"]).current_dir(workspace()?);
    for name in run(&mut files)?.split('\0').filter(|name| name.ends_with(".rs")) {
        let Ok(text) = fs::read_to_string(workspace()?.join(name)) else { continue };
        for point in loops_in(&text).filter(|point| !list.contains(&format!("\"{point}\""))) {
            wrong.push(format!("{name}: the loop `{point}` is not in {PANIC_POINTS}"));
        }
    }
    Ok(())
}

/// Names of loops that are spawned.
fn loops_in(source: &str) -> impl Iterator<Item = &str> {
    source
        .split(".spawn(")
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
}

#[cfg(test)]
mod tests {
    use super::{loops_in, turns_it_on};

    #[test]
    fn loops_have_names() {
        let source = "a.spawn(\"x.y\", async {});\n b\n.spawn(\n    \"z\",\n c); tokio::spawn(d); e.spawn(f)";
        assert_eq!(loops_in(source).collect::<Vec<_>>(), ["x.y", "z"]);
    }

    #[test]
    fn lines_of_builds() {
        for line in [
            "cargo build --features mutants",
            "cargo b --all-features",
            "-F x --features=a,mutants",
        ] {
            assert!(turns_it_on(line), "{line}");
        }
        for line in ["@scripts/mutants $(ARGS)", "cargo build --features api"] {
            assert!(!turns_it_on(line), "{line}");
        }
    }
}
