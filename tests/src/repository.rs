//! Where things are in the source tree.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

/// The root of the repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A file of the examples' data.
pub fn data_file(name: &str) -> PathBuf {
    repository().join("examples/data").join(name)
}

/// A file of the examples' data as a task names it: relative to where the cluster was started.
pub fn example(name: &str) -> String {
    format!("examples/data/{name}")
}

/// What a workload must come out as.
pub fn expected(name: &str) -> anyhow::Result<Value> {
    let path = data_file(name);
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

/// A template of the tests.
pub fn template(name: &str) -> anyhow::Result<String> {
    let path = repository().join("tests/templates").join(format!("{name}.yaml"));
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}
