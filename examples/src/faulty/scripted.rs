//! A handler that does what the task's context says, so that a test can play any workflow.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tasker_sdk::{DependencyResult, HandlerRegistry, StepContext, StepError, StepResult};

use super::ON_PURPOSE;

pub(super) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new().register("faulty.scripted", play)
}

/// The context: what each step does, by its name. Steps that are not named succeed.
#[derive(Deserialize)]
struct Script {
    #[serde(default)]
    script: HashMap<String, Part>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields)]
struct Part {
    /// How long it takes.
    #[serde(default)]
    sleep_ms: u64,
    /// How many tries fail before one does what `returns` says.
    #[serde(default)]
    failures: u32,
    /// Whether the failures are final.
    #[serde(default)]
    permanent: bool,
    /// The result; if it is missing, what became of the dependencies, by name.
    returns: Option<Value>,
}

async fn play(ctx: StepContext) -> Result<StepResult, StepError> {
    let Script { script } = ctx.input()?;
    let part = script.get(ctx.name()).cloned().unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(part.sleep_ms)).await;
    if ctx.tries() < part.failures {
        let message = format!("failure {} of `{}`", ctx.tries() + 1, ctx.name());
        return Err(match part.permanent {
            true => StepError::permanent(ON_PURPOSE, message),
            false => StepError::retryable(ON_PURPOSE, message),
        });
    }
    if let Some(result) = part.returns {
        return Ok(result.into());
    }
    let state = |result: DependencyResult| match result {
        DependencyResult::Failed(_) => "failed",
        DependencyResult::Result(_) | DependencyResult::TooLarge { .. } => "complete",
    };
    let saw: BTreeMap<String, &str> =
        ctx.dependency_results().await?.into_iter().map(|(name, r)| (name, state(r))).collect();
    Ok(json!({"saw": saw}).into())
}
