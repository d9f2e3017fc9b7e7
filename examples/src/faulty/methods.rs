//! One callable with several entry points, and handlers that only a resolver finds.

use serde_json::json;
use tasker_sdk::{HandlerRegistry, RegisteredHandler, StepContext, StepError, StepResult};

pub(super) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("faulty.methods", says("call"))
        .register_method("faulty.methods", "other", says("other"))
        .resolver("faulty.aside", |callable, method| {
            (callable == "faulty.methods").then(|| says(&format!("aside: {method}")))
        })
        .resolver("faulty.panics", |_, _| panic!("a panic on purpose"))
        .chained_resolver("faulty.chain", |callable, method| {
            let (prefix, name) = callable.split_once('/')?;
            (prefix == "faulty.found").then(|| says(&format!("{name}: {method}")))
        })
}

/// Returns which one it is, and its configuration.
fn says(which: &str) -> RegisteredHandler {
    let which = which.to_owned();
    RegisteredHandler::new(move |ctx: StepContext| {
        let which = which.clone();
        async move { answer(&which, &ctx) }
    })
}

fn answer(which: &str, ctx: &StepContext) -> Result<StepResult, StepError> {
    Ok(json!({"ran": which, "config": ctx.config()}).into())
}
