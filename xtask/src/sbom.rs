//! What the shipped programs are made of, as CycloneDX 1.5: `make sbom`. Nothing in it depends on when or
//! where it is written, so that two builds of one commit can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::{run, workspace};

/// What is shipped.
const PROGRAMS: [&str; 3] = ["tasker", "tasker-orchestrator-node", "tasker-worker-node"];

/// The platform of the images.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Writes it to a file.
pub(crate) fn write(path: &Path) -> anyhow::Result<String> {
    let top = workspace()?;
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]);
    let metadata: Value = serde_json::from_str(&run(cargo.current_dir(&top))?)?;
    let checksums = checksums(&fs::read_to_string(top.join("Cargo.lock"))?);
    let bill = bill(&metadata, &checksums)?;
    let path = top.join(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, format!("{bill:#}\n")).with_context(|| path.display().to_string())?;
    let parts = bill["components"].as_array().map_or(0, Vec::len);
    Ok(format!("{}: {} programs, {parts} crates", path.display(), PROGRAMS.len()))
}

/// SHA-256 by name and version, as `Cargo.lock` pins them.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, key: &str| -> Option<String> {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    let packages = lock.split("[[package]]").skip(1).filter_map(|block| {
        let key = (value(block, "name")?, value(block, "version")?);
        Some((key, value(block, "checksum")?))
    });
    packages.collect()
}

fn bill(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> anyhow::Result<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let edges: BTreeMap<String, BTreeSet<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            // What only tests are built with is not shipped.
            let is_shipped =
                |d: &&Value| list(&d["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
            let on = list(&node["deps"]);
            (text(&node["id"]), on.iter().filter(is_shipped).map(|d| text(&d["pkg"])).collect())
        })
        .collect();
    let programs: Vec<&String> = packages
        .iter()
        .filter(|(_, package)| PROGRAMS.contains(&text(&package["name"]).as_str()))
        .map(|(id, _)| id)
        .collect();
    if programs.len() != PROGRAMS.len() {
        bail!("not all of {PROGRAMS:?} are in the workspace");
    }
    let mut shipped = BTreeSet::new();
    let mut open: Vec<&String> = programs;
    while let Some(id) = open.pop() {
        if shipped.insert(id) {
            open.extend(edges.get(id).into_iter().flatten());
        }
    }
    let reference = |id: &str| {
        let package = &packages[id];
        format!("pkg:cargo/{}@{}", text(&package["name"]), text(&package["version"]))
    };
    let components = shipped.iter().map(|id| component(&packages[*id], &reference(id), checksums));
    let dependencies = shipped.iter().map(|id| {
        let on: BTreeSet<String> = edges[*id].iter().map(|other| reference(other)).collect();
        json!({"ref": reference(id), "dependsOn": on})
    });
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "tasker", "bom-ref": "tasker-programs"}},
        "components": components.collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

fn component(
    package: &Value,
    reference: &str,
    checksums: &BTreeMap<(String, String), String>,
) -> Value {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let kind = if PROGRAMS.contains(&text("name").as_str()) { "application" } else { "library" };
    // Old manifests write `/` for OR.
    let licence = text("license").replace('/', " OR ");
    let mut component = json!({
        "type": kind, "bom-ref": reference, "name": text("name"), "version": text("version"),
        "purl": reference, "licenses": [{"expression": licence}],
    });
    if let Some(checksum) = checksums.get(&(text("name"), text("version"))) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_and_nothing_else() {
        let package = |name: &str, licence: &str| json!({"id": name, "name": name, "version": "1.0.0", "license": licence});
        let needs = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("tasker", "MIT"), package("tasker-orchestrator-node", "MIT"),
                package("tasker-worker-node", "MIT"), package("used", "MIT/Apache-2.0"),
                package("builds", "MIT"), package("tests", "MIT"), package("unused", "MIT")],
            "resolve": {"nodes": [
                {"id": "tasker", "deps": [needs("used", Value::Null), needs("tests", json!("dev"))]},
                {"id": "used", "deps": [needs("builds", json!("build"))]},
                {"id": "tasker-orchestrator-node", "deps": []},
                {"id": "tasker-worker-node", "deps": []},
                {"id": "builds", "deps": []}]},
        });
        let lock = "[[package]]\nname = \"used\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n";
        let bill = bill(&metadata, &checksums(lock)).expect("complete");
        let names: Vec<&str> = bill["components"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|component| component["name"].as_str())
            .collect();
        let programs = ["tasker", "tasker-orchestrator-node", "tasker-worker-node"];
        assert_eq!(names, [&["builds"], &programs[..], &["used"]].concat());
        let used = &bill["components"][4];
        assert_eq!(used["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(used["hashes"][0]["content"], "abc");
        assert_eq!(bill["dependencies"][1]["dependsOn"], json!(["pkg:cargo/used@1.0.0"]));
    }
}
