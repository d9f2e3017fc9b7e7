//! The limit of a namespace, which its queues share.

use std::time::Duration;

use serde_json::{Value, json};
use tasker_tests::{Answer, Api, Cluster, until};

use crate::support::{SOON, ended_members, number, slow_batch};

/// Every worker pulls both queues.
const SETTINGS: &str = "[worker]\nqueues = [\"default\", \"gpu\"]\n";

/// Registers a template whose members are counted, and one whose members are of another queue.
async fn register(api: &Api) -> anyhow::Result<()> {
    api.register(&slow_batch("gauged", "", "faulty.gauge")).await?;
    api.register(&slow_batch("gauged_gpu", "", "faulty.gauge, queue: gpu")).await
}

async fn limit(api: &Api, max_running: Value) -> anyhow::Result<Answer> {
    let body = json!({"max_running": max_running, "reason": "a test"});
    let answer =
        api.send("PUT", "/v1/namespaces/faulty", &[], body.to_string().into_bytes()).await?;
    assert_eq!(answer.status, 200, "{}", answer.text);
    Ok(answer)
}

async fn start(api: &Api, name: &str, n: u64, sleep_ms: u64) -> anyhow::Result<String> {
    api.submit("faulty", name, json!({"n": n, "sleep_ms": sleep_ms, "gauge": "all"})).await
}

/// How many members of all tasks ran when each of the members began.
async fn running(api: &Api, task: &str) -> anyhow::Result<Vec<u64>> {
    gauged(api, task, "running").await
}

async fn gauged(api: &Api, task: &str, what: &str) -> anyhow::Result<Vec<u64>> {
    let task = api.wait(task, SOON).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let steps = api.all_steps(task.id(), 1_000).await?;
    let members = steps.iter().filter(|step| step["type"] == "batch_worker");
    members.map(|step| number(&step["results"]["result"], what)).collect()
}

async fn until_ended(api: &Api, task: &str, members: u64) -> anyhow::Result<()> {
    until("members have ended", SOON, async || {
        Ok(ended_members(&api.summary(task).await?) >= members)
    })
    .await
}

/// How often it was so many at least.
fn part(counts: &[u64], least: u64) -> f64 {
    counts.iter().filter(|&&n| n >= least).count() as f64 / counts.len() as f64
}

#[tokio::test]
async fn two_queues_share_one_limit_and_all_of_it() -> anyhow::Result<()> {
    // One worker with more slots than that, so that its gauge sees all of them; and two orchestrators,
    // either of which may send.
    let cluster = Cluster::with_settings(2, 1, SETTINGS).await?;
    let api = cluster.api()?;
    register(&api).await?;
    limit(&api, json!(8)).await?;
    // Out of step with each other. The second queue comes when the first one has all of the limit, and
    // is alone when the first one has ended.
    let one = start(&api, "gauged", 160, 90).await?;
    until_ended(&api, &one, 24).await?;
    let other = start(&api, "gauged_gpu", 160, 70).await?;
    let all = [running(&api, &one).await?, running(&api, &other).await?].concat();
    assert_eq!((all.len(), all.iter().max()), (320, Some(&8)), "{all:?}");
    // When they are half done: members that begin and end together see each other then. Half of the limit for
    // whoever is alone would be four.
    let all = [gauged(&api, &one, "meanwhile").await?, gauged(&api, &other, "meanwhile").await?];
    assert!(all.iter().all(|meanwhile| part(meanwhile, 7) > 0.6), "{all:?}");
    Ok(())
}

#[tokio::test]
async fn queues_take_turns_within_a_limit_of_one() -> anyhow::Result<()> {
    let cluster = Cluster::with_settings(2, 1, SETTINGS).await?;
    let api = cluster.api()?;
    register(&api).await?;
    limit(&api, json!(1)).await?;
    let tasks = [start(&api, "gauged", 100, 50).await?, start(&api, "gauged_gpu", 100, 50).await?];
    // Neither waits for the end of the other.
    for task in &tasks {
        until_ended(&api, task, 5).await?;
    }
    let left = [api.summary(&tasks[0]).await?, api.summary(&tasks[1]).await?];
    assert!(left.iter().all(|summary| ended_members(summary) < 100), "{left:?}");
    for task in &tasks {
        assert_eq!(running(&api, task).await?, [1; 100]);
    }
    Ok(())
}

#[tokio::test]
async fn a_limit_is_changed_and_removed_while_steps_run() -> anyhow::Result<()> {
    let cluster = Cluster::with_settings(2, 1, SETTINGS).await?;
    let api = cluster.api()?;
    register(&api).await?;
    let start_both = async |n, sleep_ms| {
        let one = start(&api, "gauged", n, sleep_ms).await?;
        anyhow::Ok([one, start(&api, "gauged_gpu", n, sleep_ms).await?])
    };
    let counts = async |tasks: &[String; 2]| {
        anyhow::Ok([running(&api, &tasks[0]).await?, running(&api, &tasks[1]).await?].concat())
    };
    // Lowered to less than what runs: it stops nothing, and then holds.
    let tasks = start_both(120, 100).await?;
    until_ended(&api, &tasks[0], 10).await?;
    limit(&api, json!(4)).await?;
    let lowered = counts(&tasks).await?;
    assert!(lowered.iter().max() > Some(&4), "{lowered:?}");
    let after = start_both(16, 50).await?;
    let held = counts(&after).await?;
    assert!(held.iter().max() <= Some(&4), "{held:?}");
    // Raised: all of it is used soon.
    let raised = start_both(80, 100).await?;
    until_ended(&api, &raised[0], 4).await?;
    limit(&api, json!(12)).await?;
    let raised = counts(&raised).await?;
    assert_eq!(raised.iter().max(), Some(&12), "{raised:?}");
    // Removed: as if it had never been.
    limit(&api, Value::Null).await?;
    let free = counts(&start_both(60, 200).await?).await?;
    assert!(free.iter().max() > Some(&20), "the limit is still there: {free:?}");
    until("nobody is held back", Duration::from_secs(30), async || {
        Ok(counts(&start_both(20, 100).await?).await?.iter().max() > Some(&20))
    })
    .await?;
    // A namespace without a limit is nobody's to share.
    let shared =
        "select count(*) from tasker.namespaces where name <> 'faulty' and shared_by is not null";
    assert_eq!(cluster.database()?.row(shared).await?["count"], 0);
    Ok(())
}

#[tokio::test]
async fn another_namespace_is_not_slowed_by_a_limit() -> anyhow::Result<()> {
    let cluster = Cluster::with_settings(1, 1, SETTINGS).await?;
    let api = cluster.api()?;
    register(&api).await?;
    api.register(&slow_batch("gauged", "", "faulty.gauge").replace(": faulty\n", ": other\n"))
        .await?;
    limit(&api, json!(2)).await?;
    let limited = start(&api, "gauged", 60, 200).await?;
    until_ended(&api, &limited, 4).await?;
    // Slots move to it by and by.
    let fast = json!({"n": 800, "sleep_ms": 50, "gauge": "free"});
    let free = running(&api, &api.submit("other", "gauged", fast).await?).await?;
    assert!(free.iter().max() >= Some(&20), "it got few of the 30 slots: {free:?}");
    let limited = running(&api, &limited).await?;
    assert_eq!(limited.iter().max(), Some(&2), "{limited:?}");
    Ok(())
}
