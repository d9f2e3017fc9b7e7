//! Faults of our own processes, by signals.

use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tasker_tests::{Cluster, Process, until};

use super::ledger::count;
use super::trial::{Rounds, Trial};

/// For a process that was killed to be replaced.
pub(super) const REPLACED: Duration = Duration::from_secs(20);
/// Longer than `streams.ack_wait_ms`, than a lease, than a heartbeat.
const FROZEN: Duration = Duration::from_secs(20);

/// For the slow members of a frozen worker to be delivered again, perhaps twice, and run.
const RERUN: Duration = Duration::from_secs(60);

/// Which processes of a cluster.
pub(super) type Role = fn(&Cluster) -> anyhow::Result<Vec<i32>>;

pub(super) fn workers(cluster: &Cluster) -> anyhow::Result<Vec<i32>> {
    Ok(cluster.state()?.pids.workers)
}

pub(super) fn orchestrators(cluster: &Cluster) -> anyhow::Result<Vec<i32>> {
    Ok(cluster.state()?.pids.orchestrators)
}

/// One of them that runs; each in turn.
pub(super) async fn victim(cluster: &Cluster, role: Role, round: u64) -> anyhow::Result<Process> {
    let mut found = None;
    until("a process to hurt", REPLACED, async || {
        let pids = role(cluster)?;
        found = Process::running(pids[round as usize % pids.len()]).ok();
        Ok(found.is_some_and(Process::is_alive))
    })
    .await?;
    found.context("a process")
}

/// Steps that were charged for a worker that vanished, beside those attempts that failed.
pub(super) const CHARGED: &str = "select s.id, s.name, s.kind, s.tries, s.attempt, s.dispatch_seq
    from tasker.steps s
    where s.tries > (select count(*) from tasker.failed_attempts f where f.step_id = s.id)";

/// Steps that were sent again because the bus did not have their message: it was acknowledged too early,
/// where the bus itself lost nothing.
const LOST: &str = "select count(*) from tasker.steps where claim_required";

const BETWEEN_KILLS: Duration = Duration::from_secs(2);

/// Kills one of them every two seconds.
pub(super) async fn kill_in_turn(trial: &mut Trial, role: Role, rounds: u64) -> anyhow::Result<()> {
    for round in 0..rounds {
        let process = victim(&trial.cluster, role, round).await?;
        process.signal(Signal::SIGKILL)?;
        until("it is dead", REPLACED, async || Ok(!process.is_alive())).await?;
        trial.hit(1);
        tokio::time::sleep(BETWEEN_KILLS).await;
    }
    Ok(())
}

#[tokio::test]
async fn f0_nothing_happens() -> anyhow::Result<()> {
    let rounds = Rounds { few: 1, all: 5, at_a_time: 1 };
    let Some((mut trial, _)) = Trial::start("F0 none", rounds).await? else { return Ok(()) };
    trial.until_work_is_done(40).await?;
    trial.hit(1);
    let cluster_metrics = trial.cluster.api()?.get("/metrics").await?.text;
    let seen = trial.finish().await?;
    // Each attempt that failed took the step to the next one.
    let beyond = |column| {
        format!(
            "select count(*) from tasker.steps s where {column} >
             1 + (select count(*) from tasker.failed_attempts f where f.step_id = s.id)"
        )
    };
    let again = count(&seen.cluster, &beyond("dispatch_seq")).await?;
    let claimed = count(&seen.cluster, &beyond("attempt")).await?;
    // The machinery costs nothing when nothing fails.
    ensure!(again == 0 && claimed == 0, "{again} sent again, {claimed} claimed");
    ensure!(seen.executions.wasted == 0 && seen.done.unknown == 0, "{:?}", seen.executions);
    ensure!(seen.bundled > 0, "no batch came in bundles: the other faults show nothing of them");
    for name in ["tasker_reconciler_redispatched_total", "tasker_actors_restarts_total"] {
        let value = super::ledger::metric(&cluster_metrics, name);
        ensure!(value == 0.0, "{name} is {value}");
    }
    Ok(())
}

/// How soon after the last kill of a worker all work must have ended.
const RECOVERED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn f1_workers_are_killed() -> anyhow::Result<()> {
    let rounds = Rounds { few: 6, all: 200, at_a_time: 50 };
    let Some((mut trial, rounds)) = Trial::start("F1 worker killed", rounds).await? else {
        return Ok(());
    };
    kill_in_turn(&mut trial, workers, rounds).await?;
    let seen = trial.finish_within(RECOVERED - BETWEEN_KILLS).await?;
    let lost = count(&seen.cluster, LOST).await?;
    ensure!(
        lost == 0,
        "{lost} work items were not on the bus any more, and their steps had not ended"
    );
    // Steps were running, and were charged for it and run again.
    let charged = seen.cluster.database()?.rows(CHARGED).await?;
    ensure!(charged != json!([]), "no killed worker ran anything");
    Ok(())
}

/// For steps to end whose reports nobody answers.
const UNANSWERED: Duration = Duration::from_millis(400);

/// What a worker has reported dies with it and with whoever was to store it: only the messages, which are
/// not acknowledged yet, tell that there is something to be done.
#[tokio::test]
async fn f1_a_worker_and_the_orchestrators_are_killed() -> anyhow::Result<()> {
    let rounds = Rounds { few: 3, all: 30, at_a_time: 15 };
    let Some((mut trial, rounds)) = Trial::start("F1 with F2", rounds).await? else {
        return Ok(());
    };
    for round in 0..rounds {
        let worker = victim(&trial.cluster, workers, round).await?;
        let mut heard = Vec::new();
        for place in 0..orchestrators(&trial.cluster)?.len() {
            heard.push(victim(&trial.cluster, orchestrators, place as u64).await?);
        }
        heard.iter().try_for_each(|process| process.signal(Signal::SIGSTOP))?;
        tokio::time::sleep(UNANSWERED).await;
        worker.signal(Signal::SIGKILL)?;
        heard.iter().try_for_each(|process| process.signal(Signal::SIGKILL))?;
        until("they are dead", REPLACED, async || {
            Ok(!worker.is_alive() && !heard.iter().any(|process| process.is_alive()))
        })
        .await?;
        trial.hit(1);
        trial.until_work_is_done(8).await?;
    }
    let seen = trial.finish().await?;
    let lost = count(&seen.cluster, LOST).await?;
    ensure!(
        lost == 0,
        "{lost} work items were not on the bus any more, and their steps had not ended"
    );
    Ok(())
}

#[tokio::test]
async fn f2_orchestrators_are_killed() -> anyhow::Result<()> {
    let rounds = Rounds { few: 6, all: 200, at_a_time: 50 };
    let Some((mut trial, rounds)) = Trial::start("F2 orchestrator killed", rounds).await? else {
        return Ok(());
    };
    kill_in_turn(&mut trial, orchestrators, rounds).await?;
    trial.finish().await?;
    Ok(())
}

/// Stops one of them for longer than anybody waits for it, and lets it go on.
pub(super) async fn freeze(trial: &mut Trial, role: Role, round: u64) -> anyhow::Result<()> {
    let process = victim(&trial.cluster, role, round).await?;
    process.signal(Signal::SIGSTOP)?;
    tokio::time::sleep(FROZEN).await;
    process.signal(Signal::SIGCONT)?;
    trial.hit(1);
    trial.until_work_is_done(8).await
}

#[tokio::test]
async fn f4_a_worker_is_a_zombie() -> anyhow::Result<()> {
    let rounds = Rounds { few: 1, all: 50, at_a_time: 10 };
    let Some((mut trial, rounds)) = Trial::start("F4 worker frozen", rounds).await? else {
        return Ok(());
    };
    let api = trial.cluster.api()?;
    for round in 0..rounds {
        // So many slow members that each worker holds some of them when it is stopped, and so slow that
        // others still run them when it goes on: what it reports then is refused by the fence alone.
        let slow = json!({"n": 80, "seed": 0, "slow_ms": 12_000});
        let id = api.submit("chaos-a", "chaos_batch", slow).await?;
        until("it runs", REPLACED, async || {
            let summary = api.summary(&id).await?;
            Ok(summary["batches"][0]["published"] == 80)
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        freeze(&mut trial, workers, round).await?;
        let task = api.wait(&id, RERUN).await?;
        ensure!(task.state() == "complete", "{}", task.view);
    }
    let seen = trial.finish().await?;
    ensure!(seen.executions.wasted > 0, "nothing that it reported was refused");
    // What it held was run by others, and charged: it might have been killed.
    let charged = seen.cluster.database()?.rows(CHARGED).await?;
    ensure!(charged != json!([]), "it held nothing");
    Ok(())
}

#[tokio::test]
async fn f5_an_orchestrator_is_a_zombie() -> anyhow::Result<()> {
    let rounds = Rounds { few: 1, all: 50, at_a_time: 10 };
    let Some((mut trial, rounds)) = Trial::start("F5 orchestrator frozen", rounds).await? else {
        return Ok(());
    };
    for round in 0..rounds {
        freeze(&mut trial, orchestrators, round).await?;
    }
    trial.finish().await?;
    Ok(())
}

/// Every process of ours is told to end, one after the other, as a rolling upgrade does.
#[tokio::test]
async fn f22_everything_is_restarted_in_turn() -> anyhow::Result<()> {
    let rounds = Rounds { few: 1, all: 10, at_a_time: 5 };
    let Some((mut trial, rounds)) = Trial::start("F22 rolling restart", rounds).await? else {
        return Ok(());
    };
    for _ in 0..rounds {
        let roles: [Role; 2] = [orchestrators, workers];
        for role in roles {
            for place in 0..role(&trial.cluster)?.len() {
                let process = victim(&trial.cluster, role, place as u64).await?;
                process.signal(Signal::SIGTERM)?;
                until("it has ended", REPLACED, async || Ok(!process.is_alive())).await?;
                trial.hit(1);
                // The next one only when there is another in its place.
                victim(&trial.cluster, role, place as u64).await?;
                trial.until_work_is_done(4).await?;
            }
        }
    }
    let seen = trial.finish().await?;
    let charged = seen.cluster.database()?.rows(CHARGED).await?;
    ensure!(charged == json!([]), "attempts were burnt by restarts: {charged}");
    Ok(())
}
