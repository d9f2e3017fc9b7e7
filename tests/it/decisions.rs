//! Decisions: which steps come to exist, and which never do.

use futures::future::try_join_all;
use serde_json::{Value, json};
use tasker_messages::code;
use tasker_tests::{Api, Cluster, Task, assert_same};

use crate::support::{SOON, ended_batch, without};

/// Workload 4 of the even or odd way: sums of the batches, total and number of items.
async fn check_diamond(
    api: &Api,
    numbers: Vec<i64>,
    way: &str,
    sums: &[i64],
    total: i64,
    items: u64,
) -> anyhow::Result<()> {
    let (space, name) = ("combined_workflow_test", "diamond_decision_batch_processor");
    let id = api.submit(space, name, json!({"numbers": numbers})).await?;
    let task = api.wait(&id, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let mut names = vec![
        "ddb_diamond_start".to_owned(),
        "branch_evens".to_owned(),
        "branch_odds".to_owned(),
        "ddb_routing_decision".to_owned(),
        format!("{way}_batch_analyzer"),
        format!("aggregate_{way}_results"),
    ];
    names.extend((1..=sums.len()).map(|n| format!("process_{way}_batch_{n:03}")));
    names.sort();
    let mut got = task.step_names();
    got.sort_unstable();
    assert_eq!(got, names, "{numbers:?}");
    for (n, sum) in sums.iter().enumerate() {
        let result = task.result(&format!("process_{way}_batch_{:03}", n + 1))?;
        assert_eq!(result["sum"], *sum, "{numbers:?}");
    }
    let aggregate = json!({"total": total, "item_count": items, "batch_sums": sums,
        "worker_count": sums.len()});
    assert_same(task.result(&format!("aggregate_{way}_results"))?, &aggregate, &[]);
    let (analyzer, worker) = (format!("{way}_batch_analyzer"), format!("process_{way}_batch"));
    let batch = ended_batch(&analyzer, &worker, sums.len() as u64, 0);
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    Ok(())
}

#[tokio::test]
async fn a_diamond_decides_about_a_batch() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    check_diamond(&api, vec![2, 4, 6, 8, 10, 12], "even", &[6, 14, 22], 42, 6).await?;
    check_diamond(&api, vec![1, 3, 5, 7, 9, 11, 2, 4], "odd", &[4, 12, 20], 36, 6).await?;
    check_diamond(&api, (1..=10).collect(), "even", &[6, 14, 10], 30, 5).await?;

    let (space, name) = ("combined_workflow_test", "diamond_decision_batch_processor");
    let task = api.run(space, name, json!({"numbers": []}), SOON).await?;
    assert_eq!(task.state(), "blocked_by_failures");
    assert_eq!(task.error_code(), "VALIDATION_ERROR");
    assert_eq!(task.step_names().len(), 4, "four steps exist from the beginning: {}", task.view);
    Ok(())
}

#[tokio::test]
async fn an_amount_decides_about_approvals() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    let auto = &["auto_approve"][..];
    let manager = &["manager_approval"][..];
    let both = &["finance_review", "manager_approval"][..];
    let table =
        [(0.01, auto), (999.99, auto), (1000.0, manager), (4999.0, manager), (5000.0, both)];
    for (amount, approvals) in table {
        let context = json!({"amount": amount});
        let task = api.run("approvals", "conditional_approval", context, SOON).await?;
        assert_eq!(task.state(), "complete", "{}", task.view);
        let mut expect = ["validate_request", "approval_decision", "finalize_approval"].to_vec();
        expect.extend(approvals);
        expect.sort_unstable();
        let mut got = task.step_names();
        got.sort_unstable();
        assert_eq!(got, expect, "{amount}");
        let approvers: Vec<&str> = approvals
            .iter()
            .map(|step| match *step {
                "auto_approve" => "automatic",
                "manager_approval" => "manager",
                _ => "finance",
            })
            .collect();
        let result = json!({"amount": amount, "approved_by": approvers});
        assert_same(task.result("finalize_approval")?, &result, &["amount"]);
    }
    Ok(())
}

/// Two branches, one with a batch, a nested decision, and a join of all that there may be.
const PLAY: &str = "
name: play
namespace_name: decisions
version: 1.0.0
steps:
  - {name: route, type: decision, handler: {callable: faulty.scripted}, retry: {max_attempts: 2, backoff: none}}
  - {name: plain, dependencies: [route], handler: {callable: faulty.scripted}}
  - {name: behind, dependencies: [plain], handler: {callable: faulty.scripted}}
  - {name: split, type: batchable, dependencies: [route], handler: {callable: faulty.scripted}}
  - {name: part, type: batch_worker, dependencies: [split], handler: {callable: faulty.scripted}}
  - {name: nested, type: decision, dependencies: [route], handler: {callable: faulty.scripted}}
  - {name: deep, dependencies: [nested], handler: {callable: faulty.scripted}}
  - {name: join, type: deferred_convergence, dependencies: [behind, part, deep], handler: {callable: faulty.scripted}}
  - {name: after, dependencies: [join], handler: {callable: faulty.scripted}}
";

fn create(names: &[&str]) -> Value {
    let outcome = json!({"type": "create_steps", "step_names": names});
    json!({"returns": {"decision_point_outcome": outcome}})
}

fn nothing() -> Value {
    json!({"returns": {"decision_point_outcome": {"type": "no_branches"}}})
}

fn two_batches() -> Value {
    let range = json!({"start": 0, "end": 2, "batch_size": 1});
    let outcome = json!({"type": "create_batches", "worker_template_name": "part",
        "worker_count": 2, "total_items": 2, "cursor_range": range});
    json!({"returns": {"batch_processing_outcome": outcome}})
}

async fn play(api: &Api, script: Value) -> anyhow::Result<Task> {
    api.run("decisions", "play", json!({"script": script}), SOON).await
}

/// Steps as `name=state`, sorted.
fn ended(task: &Task) -> Vec<String> {
    let name = |step: &Value| {
        let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        format!("{}={}", text("name"), text("state"))
    };
    let mut steps: Vec<String> = task.steps().iter().map(name).collect();
    steps.sort();
    steps
}

#[tokio::test]
async fn exactly_the_chosen_branches_exist() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(PLAY).await?;
    // What the decisions say; which steps exist; what the join sees.
    let table = [
        (json!({"route": nothing()}), vec!["route"], json!(null)),
        (
            json!({"route": create(&["plain"])}),
            vec!["after", "behind", "join", "plain", "route"],
            json!({"behind": "complete"}),
        ),
        (
            json!({"route": create(&["split"]), "split": two_batches()}),
            vec!["after", "join", "part_001", "part_002", "route", "split"],
            json!({"split": "complete", "part_001": "complete", "part_002": "complete"}),
        ),
        (
            json!({"route": create(&["nested"]), "nested": create(&["deep"])}),
            vec!["after", "deep", "join", "nested", "route"],
            json!({"deep": "complete"}),
        ),
        (
            json!({"route": create(&["nested"]), "nested": nothing()}),
            vec!["nested", "route"],
            json!(null),
        ),
        (
            json!({"route": create(&["plain", "split", "nested"]), "split": two_batches(),
                "nested": create(&["deep"])}),
            vec![
                "after", "behind", "deep", "join", "nested", "part_001", "part_002", "plain",
                "route", "split",
            ],
            json!({"behind": "complete", "deep": "complete", "split": "complete",
                "part_001": "complete", "part_002": "complete"}),
        ),
    ];
    try_join_all(table.into_iter().map(async |(script, exist, saw)| {
        let task = play(&api, script.clone()).await?;
        assert_eq!(task.state(), "complete", "{script}: {}", task.view);
        let expect: Vec<String> = exist.iter().map(|name| format!("{name}=complete")).collect();
        assert_eq!(ended(&task), expect, "{script}");
        if !saw.is_null() {
            assert_same(&task.result("join")?["saw"], &saw, &[]);
        }
        anyhow::Ok(())
    }))
    .await?;
    Ok(())
}

#[tokio::test]
async fn failures_around_decisions() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(PLAY).await?;
    let failing = |part: Value, failures: u32, permanent: bool| {
        let mut part = part;
        part["failures"] = failures.into();
        part["permanent"] = permanent.into();
        part
    };
    // A decision that fails once decides all the same.
    let route = failing(create(&["plain"]), 1, false);
    let task = play(&api, json!({"route": route})).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    assert_eq!(task.step("route")?["attempt"], 2);

    // One that fails for good creates nothing, and the task says what stands in the way.
    let route = failing(create(&["plain"]), 9, true);
    let task = play(&api, json!({"route": route})).await?;
    assert_eq!((task.state(), task.error_code()), ("blocked_by_failures", "FAILED_ON_PURPOSE"));
    assert_eq!(ended(&task), ["route=error"]);

    // A nested one that fails counts as a failed parent: the join runs over the rest.
    let script =
        json!({"route": create(&["plain", "nested"]), "nested": failing(nothing(), 9, true)});
    let task = play(&api, script).await?;
    let expect = [
        "after=complete",
        "behind=complete",
        "join=complete",
        "nested=error",
        "plain=complete",
        "route=complete",
    ];
    assert_eq!(ended(&task), expect);
    assert_eq!(task.state(), "blocked_by_failures", "what the decision would have created waits");
    assert_same(&task.result("join")?["saw"], &json!({"behind": "complete"}), &[]);
    Ok(())
}

#[tokio::test]
async fn malformed_decisions_fail_their_step_alone() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let api = cluster.api()?;
    api.register(PLAY).await?;
    let outcome = |outcome: Value| json!({"decision_point_outcome": outcome});
    let table = [
        (json!({}), code::DECISION_OUTCOME_INVALID),
        (
            outcome(json!({"type": "create_steps", "step_names": []})),
            code::DECISION_OUTCOME_INVALID,
        ),
        (outcome(json!({"outcome_type": "NoBranches"})), code::DECISION_OUTCOME_OLD_SHAPE),
        (
            outcome(json!({"type": "create_steps", "step_names": ["plan"]})),
            code::DECISION_STEP_INVALID,
        ),
        (
            outcome(json!({"type": "create_steps", "step_names": ["join"]})),
            code::DECISION_STEP_INVALID,
        ),
        (
            outcome(json!({"type": "create_steps", "step_names": ["plain", "deep"]})),
            code::DECISION_STEP_INVALID,
        ),
    ];
    for (result, expect) in table {
        let task = play(&api, json!({"route": {"returns": result}})).await?;
        assert_eq!((task.state(), task.error_code()), ("blocked_by_failures", expect), "{result}");
        assert_eq!(ended(&task), ["route=error"], "{result}");
        assert_eq!(task.step("route")?["attempt"], 1, "it is not tried again: {result}");
    }
    Ok(())
}
