//! Members that count how many of them run at the same time in this process.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tasker_sdk::{Batchable, HandlerRegistry, StepContext, StepError, StepHandler, StepResult};

pub(super) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new().register("faulty.gauge", Gauge)
}

/// Members that run now, by gauge.
static RUNNING: LazyLock<Mutex<HashMap<String, u32>>> = LazyLock::new(Mutex::default);

#[derive(Deserialize)]
struct Input {
    /// How long each member takes.
    sleep_ms: u64,
    /// Members, 0-based, whose first attempt fails.
    #[serde(default)]
    fail_once: Vec<u64>,
    /// What tasks that are counted together have in common; else each is counted alone.
    gauge: Option<String>,
}

/// Returns its number and how many members ran when it began, and when it was half done, itself among them.
struct Gauge;

impl Batchable for Gauge {}

impl StepHandler for Gauge {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let input: Input = ctx.input()?;
        let value = self.get_batch_context(&ctx)?.start_position()?;
        let gauge = input.gauge.unwrap_or_else(|| ctx.task_id().to_string());
        let running = count(&gauge, 1);
        let half = Duration::from_millis(input.sleep_ms) / 2;
        tokio::time::sleep(half).await;
        let meanwhile = count(&gauge, 0);
        tokio::time::sleep(half).await;
        count(&gauge, -1);
        if ctx.tries() == 0 && input.fail_once.contains(&value) {
            return Err(StepError::retryable(super::ON_PURPOSE, "fails once on purpose"));
        }
        Ok(json!({"value": value, "running": running, "meanwhile": meanwhile}).into())
    }
}

fn count(gauge: &str, change: i32) -> u32 {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let now = running.entry(gauge.to_owned()).or_default();
    *now = now.saturating_add_signed(change);
    *now
}
