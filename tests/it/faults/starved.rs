//! F26: nodes that get little of the processor, servers whose disk is slow. Whoever is slow is not dead:
//! what it holds must not go to others, again and again.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use tasker_tests::{Cluster, Process, Ration, Stutter};

use super::ledger::count;
use super::trial::{Rounds, Seen, Trial};

/// Of one processor, for all nodes together.
const PERCENT: u32 = 10;
/// From the end of the fault until work goes on as before.
const RESUMED: Duration = Duration::from_secs(20);
/// Of all attempts that are begun, so many must be stored.
const USEFUL_PERCENT: u64 = 80;
/// A step may be claimed from a worker that is slow, but not on and on.
const MOST_CLAIMS: u64 = 2;
/// So many members that take so long that their workers must give signs of life: for longer than twice
/// `streams.ack_wait_ms`, and leases are shorter.
const SLOW: u32 = 60;
const SLOW_MS: u32 = 40_000;
/// For these to end.
const SLOW_END: Duration = Duration::from_secs(60);

/// The most claims of one step: each raises its attempt, and so does each failure.
const CLAIMS: &str = "select coalesce(max(s.attempt - 1 - (
        select count(*) from tasker.failed_attempts f where f.step_id = s.id)), 0)
    from tasker.steps s";

const OUTCOMES: &str = "select count(*) from tasker.outcomes";

/// Attempts that were begun, what was stored of them, how often a step went from one worker to another.
async fn check_useful(seen: &Seen) -> anyhow::Result<()> {
    let (begun, wasted) = (seen.executions.begun, seen.executions.wasted);
    let useful = (begun - wasted) * 100 / begun.max(1);
    ensure!(useful >= USEFUL_PERCENT, "of {begun} attempts {wasted} were in vain");
    let claims = count(&seen.cluster, CLAIMS).await?;
    ensure!(claims <= MOST_CLAIMS, "a step was claimed {claims} times");
    Ok(())
}

/// Begins what workers must hold for long.
async fn begin_slow(cluster: &Cluster) -> anyhow::Result<String> {
    let context = json!({"n": SLOW, "seed": 0, "slow_ms": SLOW_MS});
    cluster.api()?.submit("chaos-a", "chaos_batch", context).await
}

/// A round is a second.
const ROUNDS: Rounds = Rounds { few: 0, all: 60, at_a_time: 60 };

#[tokio::test]
async fn f26_nodes_get_little_of_the_processor() -> anyhow::Result<()> {
    let Some((mut trial, rounds)) = Trial::start("F26 CPU starved", ROUNDS).await? else {
        return Ok(());
    };
    let pids = trial.cluster.state()?.pids;
    let slow_task = begin_slow(&trial.cluster).await?;
    let before = count(&trial.cluster, OUTCOMES).await?;
    let nodes: Vec<Process> = pids.nodes().map(Process::running).collect::<Result<_, _>>()?;
    let ration = Ration::of(&nodes, PERCENT)?;
    tokio::time::sleep(Duration::from_secs(rounds)).await;
    // Ten times a second the ration is given anew; it was used up in most of them.
    let times_up = ration.times_up()?;
    let done = count(&trial.cluster, OUTCOMES).await? - before;
    drop(ration);
    trial.hit(times_up);
    ensure!(times_up > rounds * 5, "the nodes had all that they wanted: {times_up}");
    finish(trial, done, &slow_task, |cluster| Ok(cluster.state()?.pids == pids)).await
}

/// The longest time for which Postgres can be made to wait before it writes what was committed.
const FLUSH: Duration = Duration::from_millis(100);
/// How long nats-server waits for its disk, and how long it does not, in turn.
const WRITE: Duration = Duration::from_millis(450);
const NO_WRITE: Duration = Duration::from_millis(50);

/// Has each flush of the log take longer, by a setting that is made for gathering commits.
async fn slow_down(cluster: &Cluster, delay: Duration) -> anyhow::Result<()> {
    let database = cluster.database()?;
    let settings = [("commit_siblings", 0), ("commit_delay", delay.as_micros())];
    for (name, value) in settings {
        database.run(&format!("alter system set {name} = {value}")).await?;
    }
    database.run("select pg_reload_conf()").await?;
    Ok(())
}

/// How long a commit takes.
async fn commit_time(cluster: &Cluster) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    cluster.database()?.run("select pg_logical_emit_message(true, 'tests', 'x')").await?;
    Ok(begun.elapsed())
}

#[tokio::test]
async fn f26_disks_are_slow() -> anyhow::Result<()> {
    let Some((mut trial, rounds)) = Trial::start("F26 slow disk", ROUNDS).await? else {
        return Ok(());
    };
    let pids = trial.cluster.state()?.pids;
    let slow_task = begin_slow(&trial.cluster).await?;
    let before = count(&trial.cluster, OUTCOMES).await?;
    slow_down(&trial.cluster, FLUSH).await?;
    let nats = Stutter::of(Process::running(pids.nats)?, WRITE, NO_WRITE);
    let (mut slow, mut seconds) = (0, tokio::time::interval(Duration::from_secs(1)));
    for _ in 0..rounds {
        seconds.tick().await;
        // One that comes while others wait is written with theirs.
        slow += u64::from(commit_time(&trial.cluster).await? >= FLUSH / 2);
    }
    trial.hit(slow);
    trial.note("stalls_of_the_bus", nats.end());
    let done = count(&trial.cluster, OUTCOMES).await? - before;
    slow_down(&trial.cluster, Duration::ZERO).await?;
    ensure!(slow > rounds / 2, "of {rounds} commits {slow} were slow");
    finish(trial, done, &slow_task, |cluster| Ok(cluster.state()?.pids == pids)).await
}

/// After the fault: work was done meanwhile and goes on, nothing has died, little was in vain.
async fn finish(
    mut trial: Trial,
    done: u64,
    slow_task: &str,
    all_live: impl Fn(&Cluster) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let healed = Instant::now();
    trial.until_work_goes_on(RESUMED).await.context("after the fault")?;
    trial.note("resumption_ms", healed.elapsed().as_millis() as u64);
    trial.note("outcomes_meanwhile", done);
    let task = trial.cluster.api()?.wait(slow_task, SLOW_END).await?;
    ensure!(task.state() == "complete", "{}", task.view);
    let claims = count(&trial.cluster, CLAIMS).await?;
    trial.note("most_claims", claims);
    let seen = trial.finish().await?;
    ensure!(done > 0, "nothing was done");
    ensure!(all_live(&seen.cluster)?, "a process has ended");
    check_useful(&seen).await
}
