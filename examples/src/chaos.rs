//! The standard load of the fault tests: handlers that behave as handlers of a busy cluster do, with
//! results that follow from a formula, and a ledger of what really ran.
//!
//! Of each hundred members sixty do nothing, thirty sleep a little, eight fail once and two for good:
//! which ones says their number and the `seed` of the task.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tasker_sdk::{
    Batchable, CursorRange, Decision, DependencyResult, FanIn, HandlerRegistry, MemberResult,
    MemberResultExt, StepContext, StepError, StepHandler, StepResult, StreamingAggregator, code,
    run_streaming,
};

/// The step of the template that the ranges are for.
const WORKER_TEMPLATE: &str = "work";

/// The code of errors made on purpose.
const ON_PURPOSE: &str = "FAILED_ON_PURPOSE";

/// The folder of the ledger; without it nothing is written.
const LEDGER: &str = "TASKER_CHAOS_LEDGER";

pub(crate) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("chaos.split", Split)
        .register("chaos.work", Work)
        .register("chaos.sum", Sum)
        .register("chaos.add", add)
        .register("chaos.route", route)
}

/// The context of the tasks.
#[derive(Deserialize)]
struct Input {
    #[serde(default)]
    n: u32,
    seed: u64,
    /// How long each member sleeps, beside what its number says.
    #[serde(default)]
    slow_ms: u64,
    /// Whether nothing sleeps, so that members come in bundles.
    #[serde(default)]
    quick: bool,
}

/// Writes down that an attempt has begun: one line, in a file of this process.
fn note(ctx: &StepContext) -> Result<(), StepError> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let Some(mut file) = FILE.get_or_init(open).as_ref() else { return Ok(()) };
    let line = format!("{} {}\n", ctx.step_id(), ctx.attempt());
    let failed = |e| StepError::permanent(code::CONFIG_INVALID, format!("the ledger: {e}"));
    file.write_all(line.as_bytes()).map_err(failed)
}

fn open() -> Option<File> {
    let folder = std::env::var_os(LEDGER)?;
    let path = Path::new(&folder).join(format!("{}.ledger", std::process::id()));
    OpenOptions::new().create(true).append(true).open(path).ok()
}

/// Does what the number says.
async fn behave(number: u64, tries: u32, quick: bool) -> Result<(), StepError> {
    match number % 100 {
        0..60 => {}
        60..90 if quick => {}
        class @ 60..90 => tokio::time::sleep(Duration::from_millis(5 + (class - 60) * 3 / 2)).await,
        90..98 if tries == 0 => return Err(StepError::retryable(ON_PURPOSE, "fails once")),
        90..98 => {}
        _ => return Err(StepError::permanent(ON_PURPOSE, "fails for good")),
    }
    Ok(())
}

struct Split;

impl Batchable for Split {}

impl StepHandler for Split {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        note(&ctx)?;
        let n = ctx.input::<Input>()?.n.into();
        let range = CursorRange { start: 0, end: n, batch_size: 1 };
        self.batch_range_success(WORKER_TEMPLATE, range, n, Value::Null)
    }
}

struct Work;

impl Batchable for Work {}

impl StepHandler for Work {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        note(&ctx)?;
        let value = self.get_batch_context(&ctx)?.start_position()?;
        let input = ctx.input::<Input>()?;
        if input.slow_ms > 0 {
            tokio::time::sleep(Duration::from_millis(input.slow_ms)).await;
        }
        behave(input.seed.wrapping_add(value), ctx.tries(), input.quick).await?;
        // The attempt, so that a result that is stored as another one's shows.
        Ok(json!({"value": value, "attempt": ctx.attempt()}).into())
    }
}

#[derive(Deserialize)]
struct Worked {
    value: u64,
}

/// Sum and exclusive or: a member that is missing or there twice shows in one of them.
struct Sum;

impl StepHandler for Sum {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        note(&ctx)?;
        run_streaming(&ctx, self).await
    }
}

impl StreamingAggregator for Sum {
    type Acc = (u64, u64);

    fn fold(&self, (sum, xor): &mut (u64, u64), member: &MemberResult) -> Result<(), StepError> {
        if let Some(Worked { value }) = member.result_as()? {
            *sum += value;
            *xor ^= value;
        }
        Ok(())
    }

    fn finish(&self, (sum, xor): (u64, u64), fan_in: &FanIn) -> Result<StepResult, StepError> {
        let FanIn { succeeded, failed, .. } = fan_in;
        Ok(json!({"sum": sum, "xor": xor, "succeeded": succeeded, "failed": failed}).into())
    }
}

/// `handler.initialization` of `chaos.add`.
#[derive(Deserialize)]
struct Add {
    /// Added to what the dependencies returned; the seed of the task if it is missing.
    plus: Option<u64>,
}

async fn add(ctx: StepContext) -> Result<StepResult, StepError> {
    note(&ctx)?;
    let (plus, input) = (ctx.config_as::<Add>()?.plus, ctx.input::<Input>()?);
    let seed = input.seed;
    // None of these fails for good.
    behave(seed.wrapping_add(plus.unwrap_or(0)) % 98, ctx.tries(), input.quick).await?;
    let mut value = plus.unwrap_or(seed);
    for (name, result) in ctx.dependency_results().await? {
        match result {
            DependencyResult::Result(result) => value += result["value"].as_u64().unwrap_or(0),
            other => {
                let message = format!("`{name}` has no result: {other:?}");
                return Err(StepError::permanent(ON_PURPOSE, message));
            }
        }
    }
    Ok(json!({"value": value}).into())
}

/// Creates `odd` or `even`, as the seed is.
async fn route(ctx: StepContext) -> Result<StepResult, StepError> {
    note(&ctx)?;
    let name = if ctx.input::<Input>()?.seed % 2 == 1 { "odd" } else { "even" };
    Route.decision_success([name], Value::Null)
}

struct Route;

impl Decision for Route {}
