//! Processes killed in the middle of work: every result is right, counted once, and soon.
//!
//! Each test has a cluster of its own. The bound is `ack_wait` (15 s), 10 s more, and what is left
//! of the work.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tasker_tests::{Api, Cluster, Process, Task, assert_same, until};

use crate::support::{SOON, balanced, books, ended_batch, ended_members, number, without};

/// From the kill to the end of a task of seconds.
const LIMIT: Duration = Duration::from_secs(40);
/// From the kill to the moment at which work goes on: `ack_wait` and 10 s.
const RECOVERY: Duration = Duration::from_secs(25);
/// A few hundred thousand steps, also on a machine that has something else to do.
const WORK: Duration = Duration::from_secs(120);

fn kill(pid: i32) -> anyhow::Result<Process> {
    let process = Process::running(pid)?;
    process.signal(Signal::SIGKILL)?;
    Ok(process)
}

/// Waits until `least` members have ended and makes sure that there is work left.
async fn wait_for_progress(api: &Api, id: &str, least: u64) -> anyhow::Result<()> {
    until("some members have ended", SOON, async || {
        Ok(ended_members(&api.summary(id).await?) >= least)
    })
    .await
}

async fn has_work_left(api: &Api, id: &str) -> anyhow::Result<()> {
    let summary = api.summary(id).await?;
    ensure!(number(&summary["batches"][0], "remaining")? > 0, "too late: {summary}");
    Ok(())
}

/// Waits for the end of a `slow_batch` and checks all of it.
async fn check_slow_batch(
    cluster: &Cluster,
    id: &str,
    n: u64,
    killed_at: Instant,
) -> anyhow::Result<Task> {
    let api = cluster.api()?;
    let task = api.wait(id, LIMIT.saturating_sub(killed_at.elapsed())).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let expect = json!({"sum": n * (n - 1) / 2, "succeeded": n, "failed": 0, "worker_count": n});
    assert_same(task.result("sum_slowly")?, &expect, &[]);
    let batch = ended_batch("split_slowly", "work_slowly", n, 0);
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    assert_same(&books(&cluster.database()?, id).await?, &balanced(n), &[]);
    let steps = api.all_steps(id, 1_000).await?;
    let members = steps.iter().filter(|step| step["type"] == "batch_worker");
    let mut values: Vec<u64> =
        members.filter_map(|step| step["results"]["result"]["value"].as_u64()).collect();
    values.sort_unstable();
    assert!(values.into_iter().eq(0..n), "a member is missing or there twice");
    Ok(task)
}

#[tokio::test]
async fn a_worker_is_killed() -> anyhow::Result<()> {
    const N: u64 = 200;
    let cluster = Cluster::start(1, 2).await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    let id = api.submit("faulty", "slow_batch", json!({"n": N, "sleep_ms": 500})).await?;
    wait_for_progress(&api, &id, 20).await?;
    kill(cluster.state()?.pids.workers[0])?;
    let killed_at = Instant::now();
    has_work_left(&api, &id).await?;
    check_slow_batch(&cluster, &id, N, killed_at).await?;
    // It did hold steps, which ran again under a higher attempt; nobody else's did. Besides those in
    // its 32 slots they may be steps whose outcomes were on their way.
    let query = format!(
        "select count(*) filter (where attempt > 1) as again, max(attempt) as attempts
         from tasker.steps where task_id = '{id}'"
    );
    let row = database.row(&query).await?;
    let again = number(&row, "again")?;
    assert!((1..=64).contains(&again), "{row}");
    Ok(())
}

#[tokio::test]
async fn all_workers_are_killed() -> anyhow::Result<()> {
    const N: u64 = 200;
    let cluster = Cluster::start(1, 2).await?;
    let api = cluster.api()?;
    let id = api.submit("faulty", "slow_batch", json!({"n": N, "sleep_ms": 500})).await?;
    wait_for_progress(&api, &id, 20).await?;
    for pid in cluster.state()?.pids.workers {
        kill(pid)?;
    }
    let killed_at = Instant::now();
    has_work_left(&api, &id).await?;
    check_slow_batch(&cluster, &id, N, killed_at).await?;
    Ok(())
}

/// Where the expansion of a task's batch stands; `None` before it has begun.
async fn expansion(cluster: &Cluster, id: &str) -> anyhow::Result<Option<(String, u64)>> {
    let query = format!("select state, expanded_upto from tasker.batches where task_id = '{id}'");
    let rows = cluster.database()?.rows(&query).await?;
    let Some(row) = rows.get(0) else { return Ok(None) };
    let state = row["state"].as_str().context("a state")?.to_owned();
    Ok(Some((state, number(row, "expanded_upto")?)))
}

#[tokio::test]
async fn the_orchestrator_is_killed_in_an_expansion() -> anyhow::Result<()> {
    const N: u64 = 200_000;
    let cluster = Cluster::start(1, 2).await?;
    let api = cluster.api()?;
    let id = api.submit("bench", "fan_out", json!({"n": N})).await?;
    until("the first members are written", SOON, async || {
        Ok(matches!(expansion(&cluster, &id).await?, Some((state, 1..)) if state == "expanding"))
    })
    .await?;
    kill(cluster.state()?.pids.orchestrators[0])?;
    let killed_at = Instant::now();
    let stands = expansion(&cluster, &id).await?.context("a batch")?;
    ensure!(stands.0 == "expanding" && stands.1 < N, "too late: {stands:?}");
    // It is sealed, and members run, soon after. What is left is work.
    until("the first members have ended", RECOVERY, async || {
        Ok(ended_members(&api.summary(&id).await?) > 0)
    })
    .await?;
    assert!(killed_at.elapsed() <= RECOVERY, "{:?}", killed_at.elapsed());
    let task = api.wait(&id, WORK).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    assert_same(task.result("sum_up")?, &json!({"sum": N * (N - 1) / 2, "count": N}), &[]);
    let batch = ended_batch("make_ranges", "add_one", N, 0);
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    assert_same(&books(&cluster.database()?, &id).await?, &balanced(N), &[]);
    let query = format!(
        "select count(distinct name) as names, count(distinct result ->> 'value') as values
         from tasker.steps s join tasker.outcomes o on o.step_id = s.id
         where task_id = '{id}' and batch_id is not null"
    );
    assert_eq!(cluster.database()?.row(&query).await?, json!({"names": N, "values": N}));
    Ok(())
}

#[tokio::test]
async fn an_orchestrator_is_killed_while_members_run() -> anyhow::Result<()> {
    const N: u64 = 400;
    let cluster = Cluster::start(2, 2).await?;
    let api = cluster.api()?;
    let id = api.submit("faulty", "slow_batch", json!({"n": N, "sleep_ms": 300})).await?;
    wait_for_progress(&api, &id, 40).await?;
    // Each in turn, so that one of them is the one that dispatched.
    let pids = cluster.state()?.pids.orchestrators;
    kill(pids[0])?;
    let killed_at = Instant::now();
    until("the first is back", SOON, async || {
        let now = cluster.state()?.pids.orchestrators;
        Ok(now[0] != pids[0] && api.get("/ready").await?.status == 200)
    })
    .await?;
    kill(pids[1])?;
    has_work_left(&api, &id).await?;
    check_slow_batch(&cluster, &id, N, killed_at).await?;
    Ok(())
}

/// Kills nats-server and removes what JetStream stored before it is started again.
async fn lose_the_store(cluster: &Cluster) -> anyhow::Result<()> {
    // `dev` is stopped meanwhile, so that it does not start the server before the store is gone.
    let dev = cluster.dev().process()?;
    dev.signal(Signal::SIGSTOP)?;
    let nats = kill(cluster.state()?.pids.nats)?;
    let dead = until("nats-server is dead", SOON, async || Ok(!nats.is_alive())).await;
    let removed = fs::remove_dir_all(cluster.dev().data_dir().join("nats"));
    dev.signal(Signal::SIGCONT)?;
    dead?;
    removed.context("removing the store of JetStream")
}

#[tokio::test]
async fn the_store_of_the_bus_is_lost() -> anyhow::Result<()> {
    const N: u64 = 600;
    let cluster = Cluster::start(1, 2).await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    let epochs = async || {
        let rows = database.rows("select state from tasker.bus_epochs").await?;
        anyhow::Ok(rows)
    };
    let done = json!({"state": "done"});
    until("the first stream is known", SOON, async || Ok(epochs().await? == json!([done]))).await?;
    let id = api.submit("faulty", "slow_batch", json!({"n": N, "sleep_ms": 300})).await?;
    wait_for_progress(&api, &id, 40).await?;
    let killed_at = Instant::now();
    lose_the_store(&cluster).await?;
    has_work_left(&api, &id).await?;
    check_slow_batch(&cluster, &id, N, killed_at).await?;
    assert_eq!(epochs().await?, json!([done, done]), "the stream is the old one");
    // What is submitted from now on runs as ever.
    let next = api.run("bench", "fan_out", json!({"n": 500}), SOON).await?;
    assert_eq!(next.result("sum_up")?["count"], 500, "{}", next.view);
    Ok(())
}

/// The same before anybody has taken note of which stream there was.
#[tokio::test]
async fn the_store_of_the_bus_is_lost_at_once() -> anyhow::Result<()> {
    const N: u64 = 300;
    let cluster = Cluster::start(1, 2).await?;
    let api = cluster.api()?;
    let id = api.submit("faulty", "slow_batch", json!({"n": N, "sleep_ms": 300})).await?;
    wait_for_progress(&api, &id, 1).await?;
    let killed_at = Instant::now();
    lose_the_store(&cluster).await?;
    has_work_left(&api, &id).await?;
    check_slow_batch(&cluster, &id, N, killed_at).await?;
    Ok(())
}

#[tokio::test]
async fn the_database_is_restarted() -> anyhow::Result<()> {
    const N: u64 = 400;
    let cluster = Cluster::start(2, 2).await?;
    let api = cluster.api()?;
    let id = api.submit("faulty", "slow_batch", json!({"n": N, "sleep_ms": 300})).await?;
    wait_for_progress(&api, &id, 40).await?;
    kill(cluster.state()?.pids.postgres)?;
    let killed_at = Instant::now();
    check_slow_batch(&cluster, &id, N, killed_at).await?;
    Ok(())
}

/// Everything at once, several times: what holds for one fault should hold for their mixture.
#[tokio::test]
async fn one_fault_after_the_other() -> anyhow::Result<()> {
    const N: u64 = 2_000;
    let cluster = Cluster::start(2, 3).await?;
    let api = cluster.api()?;
    let id = api.submit("faulty", "slow_batch", json!({"n": N, "sleep_ms": 250})).await?;
    let mut killed_at = Instant::now();
    for (round, least) in [100, 400, 700].into_iter().enumerate() {
        wait_for_progress(&api, &id, least).await?;
        let pids = cluster.state()?.pids;
        let victims = [pids.workers[round], pids.orchestrators[round % 2], pids.nats];
        victims[..=round].iter().try_for_each(|pid| kill(*pid).map(drop))?;
        killed_at = Instant::now();
    }
    let books = |value: &Value| value["batches"][0].clone();
    ensure!(number(&books(&api.summary(&id).await?), "remaining")? > 0, "too late");
    check_slow_batch(&cluster, &id, N, killed_at).await?;
    Ok(())
}

/// A step that came with the answer to a report is on no stream: its lease alone brings it back.
#[tokio::test]
async fn a_worker_is_killed_while_it_runs_a_step_that_it_was_handed() -> anyhow::Result<()> {
    const CHAIN: &str = "name: handed
namespace_name: faulty
version: 1.0.0
steps:
  - {name: first, handler: {callable: faulty.scripted}}
  - {name: second, dependencies: [first], handler: {callable: faulty.scripted}}
  - {name: third, dependencies: [second], handler: {callable: faulty.scripted}}
";
    let cluster = Cluster::start(1, 1).await?;
    let (api, database) = (cluster.api()?, cluster.database()?);
    api.register(CHAIN).await?;
    // Signs of life come every 2 s and name what is held for as long: the first that names it comes up to
    // 4 s after it began, and is to find it running.
    let script = json!({"script": {"second": {"sleep_ms": 6_000}}});
    let id = api.submit("faulty", "handed", script).await?;
    let query = format!(
        "select state, sent_seq, dispatch_seq, lease_worker is not null as leased
         from tasker.steps where task_id = '{id}' and name = 'second'"
    );
    until("the second step runs", SOON, async || {
        Ok(database.row(&query).await?["state"] == "in_progress")
    })
    .await?;
    let row = database.row(&query).await?;
    assert!(row["leased"] == true && number(&row, "sent_seq")? == 0, "it was not handed: {row}");
    kill(cluster.state()?.pids.workers[0])?;
    let killed_at = Instant::now();
    let task = api.wait(&id, LIMIT.saturating_sub(killed_at.elapsed())).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    assert_eq!(task.step("second")?["attempt"], 2, "{}", task.view);
    assert_same(task.result("third")?, &json!({"saw": {"second": "complete"}}), &[]);
    let counters = format!(
        "select active_steps, pending_steps, failed_steps from tasker.tasks where id = '{id}'"
    );
    let settled = json!({"active_steps": 0, "pending_steps": 0, "failed_steps": 0});
    assert_same(&database.row(&counters).await?, &settled, &[]);
    Ok(())
}
