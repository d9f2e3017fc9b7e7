use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// A task as the API shows it.
#[derive(Debug, Clone)]
pub struct Task {
    /// The whole document.
    pub view: Value,
}

impl Task {
    pub(crate) fn new(view: Value) -> anyhow::Result<Self> {
        ensure!(view["id"].is_string() && view["state"].is_string(), "not a task: {view}");
        Ok(Self { view })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.view["id"].as_str().unwrap_or_default()
    }

    /// Its state.
    pub fn state(&self) -> &str {
        self.view["state"].as_str().unwrap_or_default()
    }

    /// Whether nothing more happens.
    pub fn has_ended(&self) -> bool {
        !matches!(self.state(), "pending" | "in_progress")
    }

    /// The code of its error; empty if it has none.
    pub fn error_code(&self) -> &str {
        self.view["error"]["code"].as_str().unwrap_or_default()
    }

    /// The message of its error; empty if it has none.
    pub fn error_message(&self) -> &str {
        self.view["error"]["message"].as_str().unwrap_or_default()
    }

    /// Its listed steps.
    pub fn steps(&self) -> &[Value] {
        self.view["steps"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The names of its listed steps, sorted.
    pub fn step_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.steps().iter().filter_map(|s| s["name"].as_str()).collect();
        names.sort_unstable();
        names
    }

    /// The one step of this name.
    ///
    /// # Errors
    /// If there is none or more than one.
    pub fn step(&self, name: &str) -> anyhow::Result<&Value> {
        let mut found = self.steps().iter().filter(|step| step["name"] == name);
        match (found.next(), found.next()) {
            (Some(step), None) => Ok(step),
            (None, _) => bail!("no step `{name}` in {}", self.view),
            _ => bail!("more than one step `{name}` in {}", self.view),
        }
    }

    /// The result of the one step of this name.
    ///
    /// # Errors
    /// If there is no such step or it did not succeed.
    pub fn result(&self, name: &str) -> anyhow::Result<&Value> {
        let step = self.step(name)?;
        ensure!(step["results"]["success"] == true, "`{name}` did not succeed: {step}");
        step["results"].get("result").with_context(|| format!("`{name}` has no result: {step}"))
    }

    /// Its only batch.
    ///
    /// # Errors
    /// If it has none or more than one.
    pub fn batch(&self) -> anyhow::Result<&Value> {
        match self.view["batches"].as_array().map(Vec::as_slice) {
            Some([batch]) => Ok(batch),
            _ => bail!("not one batch: {}", self.view),
        }
    }
}
