//! `handler.method` and `handler.resolver`: which code runs a step.

use serde_json::{Value, json};
use tasker_tests::{Api, Cluster, until};

use crate::support::SOON;

/// A step with this handler, which is tried once.
fn template(name: &str, handler: &str) -> String {
    format!(
        "name: {name}\nnamespace_name: faulty\nversion: 1.0.0\nsteps:\n  - name: run\n    \
         handler: {{{handler}}}\n    retry: {{max_attempts: 1}}\n"
    )
}

/// Runs a step with this handler; what ran, or the code and text of its error.
async fn run(api: &Api, name: &str, handler: &str) -> anyhow::Result<(Value, String)> {
    api.register(&template(name, handler)).await?;
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
        ("resolver_panics", "callable: x, resolver: faulty.panics", "HANDLER_PANIC", "on purpose"),
    ] {
        let (got, message) = run(&api, name, handler).await?;
        assert_eq!(got, ran, "{name}: {message}");
        assert!(message.contains(says), "{name}: {message}");
    }
    Ok(())
}

/// What a worker does not have another one may have: the step waits, and says for what.
#[tokio::test]
async fn what_no_worker_has_is_waited_for() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    for (name, handler, code, says) in [
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
    ] {
        api.register(&template(name, handler)).await?;
        let id = api.submit("faulty", name, json!({})).await?;
        until(&format!("{name} says {code}"), SOON, async || {
            let why = api.read(&format!("/v1/tasks/{id}/why")).await?;
            let message = why["reasons"][0]["message"].as_str().unwrap_or_default().to_owned();
            Ok(message.contains(&format!("[{code}]")) && message.contains(says))
        })
        .await?;
        let cancelled = api.send("DELETE", &format!("/v1/tasks/{id}"), &[], Vec::new()).await?;
        assert_eq!(cancelled.status, 202, "{name}: it waits: {}", cancelled.text);
    }
    Ok(())
}
