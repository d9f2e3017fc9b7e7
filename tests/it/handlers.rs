//! `handler.method` and `handler.resolver`: which code runs a step.

use serde_json::{Value, json};
use tasker_tests::{Api, Cluster};

use crate::support::SOON;

/// Runs a step with this handler; what ran, or the code and text of its error.
async fn run(api: &Api, name: &str, handler: &str) -> anyhow::Result<(Value, String)> {
    let template = format!(
        "name: {name}\nnamespace_name: faulty\nversion: 1.0.0\nsteps:\n  - name: run\n    \
         handler: {{{handler}}}\n    retry: {{max_attempts: 1}}\n"
    );
    api.register(&template).await?;
    let task = api.run("faulty", name, json!({}), SOON).await?;
    let results = &task.step("run")?["results"];
    match results["error"].is_null() {
        true => Ok((results["result"]["ran"].clone(), String::new())),
        false => Ok((results["error"]["code"].clone(), results["error"]["message"].to_string())),
    }
}

#[tokio::test]
async fn methods_and_resolvers_pick_the_handler() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    for (name, handler, ran, says) in [
        ("method_default", "callable: faulty.methods", "call", ""),
        ("method_call", "callable: faulty.methods, method: call", "call", ""),
        ("method_other", "callable: faulty.methods, method: other", "other", ""),
        ("resolved", "callable: faulty.methods, resolver: faulty.aside", "aside: call", ""),
        (
            "resolved_method",
            "callable: faulty.methods, method: m, resolver: faulty.aside",
            "aside: m",
            "",
        ),
        ("chained", "callable: faulty.found/x, method: m", "x: m", ""),
        (
            "method_missing",
            "callable: faulty.methods, method: none",
            "HANDLER_METHOD_NOT_FOUND",
            "`call`, `other`",
        ),
        (
            "resolver_missing",
            "callable: faulty.methods, resolver: none",
            "RESOLVER_NOT_FOUND",
            "`faulty.aside`",
        ),
        (
            "resolver_finds_nothing",
            "callable: faulty.panic, resolver: faulty.aside",
            "HANDLER_NOT_FOUND",
            "faulty.aside",
        ),
        ("resolver_panics", "callable: x, resolver: faulty.panics", "HANDLER_PANIC", "on purpose"),
    ] {
        let (got, message) = run(&api, name, handler).await?;
        assert_eq!(got, ran, "{name}: {message}");
        assert!(message.contains(says), "{name}: {message}");
    }
    Ok(())
}
