//! Domain events of steps: which end publishes which, what is in them, and that nothing is told that is
//! not stored.

use anyhow::Context;
use serde_json::{Value, json};
use tasker_messages::{AttemptFinished, StepFailure, StepKind, Verdict};
use tasker_tests::{Cluster, Database, assert_same, until};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::listener::{Listener, OTHER_WORKER, WORKER, brief, failed, report, succeeded};
use crate::support::SOON;

const ENDS: &str = "name: told
namespace_name: events_ends
version: 1.0.0
steps:
  - name: run
    handler: {callable: faulty.scripted}
    retry: {max_attempts: 3, backoff: none}
    publishes_events:
      - {name: done}
      - {name: order.lost, condition: failure}
      - {name: again, condition: retryable_failure}
      - {name: for_good, condition: permanent_failure}
      - {name: ended, condition: always}
  - name: after
    dependencies: [run]
    handler: {callable: faulty.scripted}
";

#[tokio::test]
async fn each_end_publishes_its_events() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let mut listener = Listener::start(&cluster, "events_ends").await?;
    let api = cluster.api()?;
    api.register(ENDS).await?;
    let lost = |attempt: u32| {
        ["ended", "for_good", "order.lost"].map(|e| format!("{e} run {attempt} error"))
    };
    let done = |attempt: u32| ["done", "ended"].map(|e| format!("{e} run {attempt} complete"));
    let retried = [1, 2].map(|attempt| format!("again run {attempt} waiting_for_retry"));
    // A result by hand is told like any other; what only counts as done is not.
    let complete = json!({"action": "complete_manually", "reason": "why", "result": {"n": 1}});
    let resolve = json!({"action": "resolve_manually", "reason": "why"});
    for (part, expect, by_hand) in [
        (json!({}), done(1).to_vec(), None),
        (json!({"failures": 2}), [&retried[..], &done(3)].concat(), None),
        (
            json!({"failures": 9}),
            [&retried[..], &lost(3)].concat(),
            Some((complete, done(4).to_vec())),
        ),
        (json!({"failures": 1, "permanent": true}), lost(1).to_vec(), Some((resolve, Vec::new()))),
    ] {
        let context = json!({"script": {"run": part}});
        let task = api.run("events_ends", "told", context, SOON).await?;
        assert_eq!(listener.hear(expect.len()).await?, expect, "{part}");
        let Some((body, expect)) = by_hand else { continue };
        let path = format!("/v1/tasks/{}/steps/run", task.id());
        let answer = api.send("PATCH", &path, &[], body.to_string().into_bytes()).await?;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(listener.hear(expect.len()).await?, expect, "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn an_event_says_what_is_stored() -> anyhow::Result<()> {
    const NAMESPACE: &str = "events_content";
    let cluster = Cluster::shared().await?;
    let mut listener = Listener::start(&cluster, NAMESPACE).await?;
    let api = cluster.api()?;
    api.register(&ENDS.replace("events_ends", NAMESPACE)).await?;
    let large = "x".repeat(300_000);
    for (result, left_out) in [
        (json!({"text": "short"}), None),
        (json!({ "text": large }), Some(json!({"field": "result", "bytes": 300_011}))),
    ] {
        let document = json!({
            "namespace": NAMESPACE, "name": "told", "correlation_id": "c-1",
            "parent_correlation_id": "p-1",
            "context": {"script": {"run": {"failures": 1, "returns": result}}},
        });
        let answer = api.post_task(&document, None).await?;
        let task = api.wait(answer.body["id"].as_str().context("an id")?, SOON).await?;
        let step = api.read(&format!("/v1/tasks/{}/steps/run", task.id())).await?;
        let id = step["step"]["id"].as_str().context("an id")?;
        let all = |name: &str, attempt: u32| {
            json!({
                "event_id": format!("{id}:{attempt}:{name}"), "event": name,
                "namespace": NAMESPACE, "task_id": task.id(), "correlation_id": "c-1",
                "parent_correlation_id": "p-1", "step_id": id, "step": "run", "attempt": attempt,
            })
        };
        let mut again = all("again", 1);
        again["state"] = "waiting_for_retry".into();
        again["ended_at"] = step["attempts"][0]["failed_at"].clone();
        again["error"] = step["attempts"][0]["error"].clone();
        assert_eq!(again["error"]["message"], "failure 1 of `run`");
        assert_same(&listener.next().await?, &again, &[]);
        for name in ["done", "ended"] {
            let mut event = all(name, 2);
            event["state"] = "complete".into();
            event["ended_at"] = step["step"]["results"]["metadata"]["completed_at"].clone();
            match &left_out {
                Some(left_out) => event["left_out"] = left_out.clone(),
                None => event["result"] = result.clone(),
            }
            assert_same(&listener.next().await?, &event, &[]);
        }
    }
    assert!(listener.hear(0).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn only_what_was_applied_is_told() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let mut listener = Listener::start(&cluster, "events_applied").await?;
    let (stale, unknown) = (Verdict::Stale { superseded: false }, Verdict::Unknown);

    // A worker that was not answered reports again, and the event comes again; it says what is stored,
    // not what is reported now. What another worker says of the step, or of another attempt, does not
    // count.
    let step = listener.silent_step("first").await?;
    let say = |attempt: u32, n: u32| succeeded(step, attempt, &json!({ "n": n }));
    assert_eq!(listener.report(&say(2, 0), WORKER, true).await?, stale);
    let odd = AttemptFinished { kind: StepKind::Decision, ..say(1, 0) };
    assert_eq!(listener.report(&odd, WORKER, true).await?, unknown);
    assert!(listener.hear(0).await?.is_empty());
    assert_eq!(listener.report(&say(1, 1), WORKER, true).await?, Verdict::Applied);
    let told = listener.next().await?;
    assert_eq!(
        (brief(&told).as_str(), &told["result"]),
        ("told first 1 complete", &json!({"n": 1}))
    );
    assert_eq!(listener.report(&say(1, 2), OTHER_WORKER, true).await?, Verdict::Duplicate);
    assert_eq!(listener.report(&say(2, 3), WORKER, true).await?, Verdict::Duplicate);
    assert!(listener.hear(0).await?.is_empty());
    assert_eq!(listener.report(&say(1, 4), WORKER, true).await?, Verdict::Duplicate);
    assert_same(&listener.next().await?, &told, &[]);

    // An attempt that is retried is told once; a worker without the handler has not tried.
    let step = listener.silent_step("second").await?;
    let verdict = listener.report(&failed(step, 1, "reported"), WORKER, true).await?;
    assert_eq!(verdict, Verdict::Applied);
    assert_eq!(listener.hear(1).await?, ["again second 1 waiting_for_retry"]);
    let verdict = listener.report(&failed(step, 1, "reported"), WORKER, true).await?;
    assert!(matches!(verdict, Verdict::Stale { .. }), "{verdict:?}");
    let step = listener.silent_step("third").await?;
    let unserved = failed(step, 1, StepFailure::UNSERVED);
    assert_eq!(listener.report(&unserved, WORKER, true).await?, Verdict::Applied);
    assert!(listener.hear(0).await?.is_empty());

    // A worker of an older build marks nothing, and all that it reports is looked up.
    let step = listener.silent_step("fourth").await?;
    let unmarked = AttemptFinished { has_events: false, ..succeeded(step, 1, &json!(4)) };
    assert_eq!(listener.report(&unmarked, WORKER, false).await?, Verdict::Applied);
    assert_eq!(listener.hear(1).await?, ["told fourth 1 complete"]);

    // What is cancelled has neither result nor error.
    let step = listener.silent_step("fifth").await?;
    let query = format!("select task_id from tasker.steps where id = '{step}'");
    let row = listener.database.row(&query).await?;
    let task = row["task_id"].as_str().context("an id")?;
    let answer = listener.api.send("DELETE", &format!("/v1/tasks/{task}"), &[], Vec::new()).await?;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let late = succeeded(step, 1, &json!(5));
    assert_eq!(listener.report(&late, WORKER, true).await?, Verdict::Duplicate);
    assert!(listener.hear(0).await?.is_empty());
    Ok(())
}

/// Runs a statement that takes a lock, and returns while its transaction goes on holding it.
async fn hold(
    database: &Database,
    lock: &str,
    seconds: f32,
) -> anyhow::Result<JoinHandle<anyhow::Result<Vec<u8>>>> {
    let holder = format!("holds_{}", Uuid::now_v7().simple());
    let statements = format!("begin; {lock}; select pg_sleep({seconds}) as {holder}; commit");
    let holding = tokio::spawn({
        let database = database.clone();
        async move { database.run(&statements).await }
    });
    let sleeping = format!(
        "select count(*) as n from pg_stat_activity
         where wait_event = 'PgSleep' and query like '%{holder}%'"
    );
    until("the lock is held", SOON, async || Ok(database.row(&sleeping).await?["n"] == 1)).await?;
    Ok(holding)
}

/// While the transaction that stores an outcome has to wait, nobody is told of it.
#[tokio::test]
async fn nothing_is_told_before_the_commit() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let mut listener = Listener::start(&cluster, "events_commit").await?;
    let step = listener.silent_step("waits").await?;
    let database = cluster.database()?;
    let lock = format!("select id from tasker.steps where id = '{step}' for update");
    let holding = hold(&database, &lock, 1.0).await?;
    let finished = succeeded(step, 1, &json!(1));
    let bus = listener.bus.clone();
    let reported = report(&bus, "events_commit", &finished, WORKER, true);
    // `next` fails if it hears of an outcome that cannot be read.
    let (verdict, event) = tokio::join!(reported, listener.next());
    assert_eq!((verdict?, brief(&event?).as_str()), (Verdict::Applied, "told waits 1 complete"));
    holding.await??;
    Ok(())
}

/// While an outcome waits for a lock, another one of its namespace is stored, though it is not enough for a
/// transaction of its own at once.
#[tokio::test]
async fn an_outcome_does_not_wait_for_one_that_waits_for_a_lock() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    let listener = Listener::start(&cluster, "events_beside").await?;
    // A machine that stands still for as long as the lock is held shows nothing in that trial. Where outcomes
    // wait for each other, each trial shows it.
    for trial in 0..5 {
        if is_stored_beside_one_that_waits(&listener, trial).await? {
            return Ok(());
        }
    }
    anyhow::bail!("it was stored after the other one")
}

/// Whether an outcome is stored while another one waits for a lock, which is held for less than the patience
/// for one.
async fn is_stored_beside_one_that_waits(listener: &Listener, trial: u32) -> anyhow::Result<bool> {
    let held = listener.silent_step(&format!("held_{trial}")).await?;
    let free = listener.silent_step(&format!("free_{trial}")).await?;
    // That they were published is recorded later, and would wait for the lock as well.
    let recorded = format!(
        "select count(*) as n from tasker.steps
         where id in ('{held}', '{free}') and sent_seq = dispatch_seq"
    );
    until(
        "both are recorded",
        SOON,
        async || Ok(listener.database.row(&recorded).await?["n"] == 2),
    )
    .await?;
    let lock = format!("select id from tasker.steps where id = '{held}' for update");
    let holding = hold(&listener.database, &lock, 1.5).await?;
    let waits = tokio::spawn({
        let bus = listener.bus.clone();
        let finished = succeeded(held, 1, &json!(1));
        async move { report(&bus, "events_beside", &finished, WORKER, true).await }
    });
    let blocked = "select count(*) as n from pg_stat_activity where pg_blocking_pids(pid) <> '{}'";
    until("an outcome waits", SOON, async || {
        Ok(waits.is_finished() || listener.database.row(blocked).await?["n"] == 1)
    })
    .await?;
    let finished = succeeded(free, 1, &json!(2));
    assert_eq!(listener.report(&finished, WORKER, true).await?, Verdict::Applied);
    let beside = !waits.is_finished() && !holding.is_finished();
    holding.await??;
    let _late = waits.await?;
    Ok(beside)
}

/// Between commit and publish something goes wrong: the worker gets no verdict, reports again, and then
/// the event comes.
#[tokio::test]
async fn an_event_that_failed_comes_with_the_next_report() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    let mut listener = Listener::start(&cluster, "events_again").await?;
    let step = listener.silent_step("kept").await?;
    let finished = succeeded(step, 1, &json!(1));
    // Storing does not need this table, reading what was stored does. Its lock outlasts the patience for
    // one.
    let lock = "lock table tasker.failed_attempts in access exclusive mode";
    let holding = hold(&listener.database, lock, 4.0).await?;
    let refused = listener.report(&finished, WORKER, true).await;
    let refused = refused.expect_err("the event could not be made").to_string();
    assert!(refused.contains("report again"), "{refused}");
    let query = format!("select state::text from tasker.outcomes where step_id = '{step}'");
    assert_eq!(listener.database.row(&query).await?["state"], "complete");
    holding.await??;
    assert_eq!(listener.report(&finished, WORKER, true).await?, Verdict::Duplicate);
    assert_eq!(listener.hear(1).await?, ["told kept 1 complete"]);
    Ok(())
}

const BATCH: &str = "name: told_batch
namespace_name: events_batch
version: 1.0.0
steps:
  - name: split_slowly
    type: batchable
    handler: {callable: faulty.slow_split}
    batch_config: {worker_template: work_slowly}
    publishes_events: [{name: was_split}]
  - name: work_slowly
    type: batch_worker
    dependencies: [split_slowly]
    handler: {callable: faulty.slow_work}
    retry: {max_attempts: 2, backoff: none}
    publishes_events:
      - {name: member.done}
      - {name: member.lost, condition: failure}
      - {name: member.again, condition: retryable_failure}
  - name: sum_slowly
    type: deferred_convergence
    dependencies: [work_slowly]
    handler: {callable: faulty.slow_sum}
    publishes_events: [{name: was_summed}]
";

#[tokio::test]
async fn each_member_publishes_its_own() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let mut listener = Listener::start(&cluster, "events_batch").await?;
    let api = cluster.api()?;
    api.register(BATCH).await?;
    let context = json!({"n": 4, "fail": [1], "fail_once": [2]});
    let task = api.run("events_batch", "told_batch", context, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let expect = [
        "member.again work_slowly_003 1 waiting_for_retry",
        "member.done work_slowly_001 1 complete",
        "member.done work_slowly_003 2 complete",
        "member.done work_slowly_004 1 complete",
        "member.lost work_slowly_002 1 error",
        "was_split split_slowly 1 complete",
        "was_summed sum_slowly 1 complete",
    ];
    assert_eq!(listener.hear(expect.len()).await?, expect);

    // What stands for a batch without ranges has done nothing.
    let task = api.run("events_batch", "told_batch", json!({"n": 0}), SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let expect = ["was_split split_slowly 1 complete", "was_summed sum_slowly 1 complete"];
    assert_eq!(listener.hear(expect.len()).await?, expect);
    Ok(())
}

/// One orchestrator, whose counters say it all.
#[tokio::test]
async fn what_does_not_fit_its_schema_is_withheld() -> anyhow::Result<()> {
    const STRICT: &str = "name: strict
namespace_name: events_strict
version: 1.0.0
steps:
  - name: run
    handler: {callable: faulty.scripted}
    retry: {max_attempts: 1}
    publishes_events:
      - name: sold
        schema: {type: object, required: [text], properties: {text: {type: string, pattern: '^x'}}}
      - {name: free, condition: always}
      - name: lost
        condition: failure
        schema: {required: [code], properties: {code: {const: OTHER}}}
";
    let cluster = Cluster::start(1, 1).await?;
    let mut listener = Listener::start(&cluster, "events_strict").await?;
    let api = cluster.api()?;
    api.register(STRICT).await?;
    // A result that is too large to travel along has to fit all the same.
    let (good, bad) = ("x".repeat(300_000), "y".repeat(300_000));
    let mut withheld = 0;
    for (part, state, expect, more) in [
        (json!({"returns": {"text": "x"}}), "complete", vec!["free", "sold"], 0),
        (json!({"returns": {"text": "y"}}), "complete", vec!["free"], 1),
        (json!({"returns": {}}), "complete", vec!["free"], 1),
        (json!({"returns": {"text": good}}), "complete", vec!["free", "sold"], 0),
        (json!({"returns": {"text": bad}}), "complete", vec!["free"], 1),
        (json!({"failures": 1}), "error", vec!["free"], 1),
    ] {
        let task =
            api.run("events_strict", "strict", json!({"script": {"run": part}}), SOON).await?;
        assert_eq!(task.state(), state, "{}", task.view);
        assert_eq!(task.step("run")?["state"], state);
        let expect: Vec<String> =
            expect.into_iter().map(|name| format!("{name} run 1 {state}")).collect();
        assert_eq!(listener.hear(expect.len()).await?, expect, "{}", task.view);
        // Whoever looks at the step sees which of them is withheld, and why.
        let view = api.read(&format!("/v1/tasks/{}/steps/run", task.id())).await?;
        let shown: Vec<&Value> = view["events"].as_array().into_iter().flatten().collect();
        let unfit = |event: &&&Value| event.get("violations").is_some();
        assert_eq!(shown.len(), expect.len() + more, "{view}");
        assert_eq!(shown.iter().filter(unfit).count(), more, "{view}");
        withheld += more;
        let metrics = api.get("/metrics").await?.text;
        let counter = "tasker_events_withheld_total{reason=\"schema\"} ";
        let counted = metrics.lines().find_map(|line| line.strip_prefix(counter));
        assert_eq!(counted.unwrap_or("0"), withheld.to_string(), "{metrics}");
    }
    Ok(())
}
