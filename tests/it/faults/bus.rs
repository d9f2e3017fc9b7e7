//! Faults of nats-server and of what it stores.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tasker_tests::{Cluster, Process, until};

use super::ledger::count;
use super::trial::{Rounds, Trial, data_dir};

const SOON: Duration = Duration::from_secs(20);

fn server(cluster: &Cluster) -> anyhow::Result<Process> {
    Process::running(cluster.state()?.pids.nats)
}

async fn kill(process: Process) -> anyhow::Result<()> {
    process.signal(Signal::SIGKILL)?;
    until("nats-server is dead", SOON, async || Ok(!process.is_alive())).await
}

/// Does something while nobody starts the server again.
async fn with_dev_stopped(
    cluster: &Cluster,
    what: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let dev = cluster.dev().process()?;
    dev.signal(Signal::SIGSTOP)?;
    let done = what().await;
    dev.signal(Signal::SIGCONT)?;
    done
}

#[tokio::test]
async fn f6_the_server_is_killed() -> anyhow::Result<()> {
    let rounds = Rounds { few: 3, all: 60, at_a_time: 30 };
    let Some((mut trial, rounds)) = Trial::start("F6 bus killed", rounds).await? else {
        return Ok(());
    };
    let (mut slowest, limit) = (Duration::ZERO, RECOVERED - BETWEEN_KILLS);
    for round in 0..rounds {
        kill_server(&mut trial).await?;
        // The others hit a cluster that may not have recovered.
        if round % 2 == 1 {
            let since = Instant::now();
            trial.until_work_goes_on(limit).await.with_context(|| format!("round {round}"))?;
            slowest = slowest.max(since.elapsed());
        }
    }
    trial.note("slowest_resumption_ms", (BETWEEN_KILLS + slowest).as_millis() as u64);
    trial.finish_within(limit).await?;
    Ok(())
}

const BETWEEN_KILLS: Duration = Duration::from_secs(5);
/// How soon after a kill what it has held up must have ended.
const RECOVERED: Duration = Duration::from_secs(15);

/// Kills the server and waits for another one.
pub(super) async fn kill_server(trial: &mut Trial) -> anyhow::Result<()> {
    kill(server(&trial.cluster)?).await?;
    trial.hit(1);
    tokio::time::sleep(BETWEEN_KILLS).await;
    until("it is back", SOON, async || Ok(server(&trial.cluster).is_ok())).await
}

/// Streams that got everything outstanding.
const DONE: &str = "select count(*) from tasker.bus_epochs where state = 'done'";
/// Streams beside the first.
const EPOCHS: &str = "select count(*) - 1 from tasker.bus_epochs";

#[tokio::test]
async fn f8_everything_stored_is_lost() -> anyhow::Result<()> {
    let rounds = Rounds { few: 2, all: 20, at_a_time: 10 };
    let Some((mut trial, rounds)) = Trial::start("F8 store lost", rounds).await? else {
        return Ok(());
    };
    until("the first stream is known", SOON, async || Ok(count(&trial.cluster, DONE).await? == 1))
        .await?;
    let api = trial.cluster.api()?;
    for _ in 0..rounds {
        // So many slow members that the store is full of them when it is lost.
        let slow = json!({"n": 400, "seed": 0, "slow_ms": 1_000});
        let id = api.submit("chaos-a", "chaos_batch", slow).await?;
        until("it runs", SOON, async || {
            let published = api.summary(&id).await?["batches"][0]["published"].as_u64();
            Ok(published.is_some_and(|published| published > 100))
        })
        .await?;
        lose_store(&mut trial).await?;
    }
    let epochs = count(&trial.cluster, EPOCHS).await?;
    trial.finish().await?;
    ensure!(epochs >= rounds, "{epochs} new streams were seen, of {rounds}");
    Ok(())
}

/// Kills the server and removes all that it has stored.
pub(super) async fn lose_store(trial: &mut Trial) -> anyhow::Result<()> {
    let store = data_dir(&trial.cluster).join("nats");
    with_dev_stopped(&trial.cluster, async || {
        kill(server(&trial.cluster)?).await?;
        fs::remove_dir_all(&store).context("removing the store")
    })
    .await?;
    trial.hit(1);
    trial.until_work_is_done(8).await
}

/// A loss of power, which takes what the server had acknowledged and not yet written: the store is
/// copied, work goes on, the server is killed and gets the copy back.
#[tokio::test]
async fn f9_the_store_is_rolled_back() -> anyhow::Result<()> {
    let rounds = Rounds { few: 1, all: 20, at_a_time: 10 };
    let Some((mut trial, rounds)) = Trial::start("F9 store rolled back", rounds).await? else {
        return Ok(());
    };
    let store = data_dir(&trial.cluster).join("nats");
    let copy = data_dir(&trial.cluster).join("nats-copy");
    for _ in 0..rounds {
        let process = server(&trial.cluster)?;
        process.signal(Signal::SIGSTOP)?;
        let copied = copy_folder(&store, &copy);
        process.signal(Signal::SIGCONT)?;
        copied?;
        trial.until_work_is_done(16).await?;
        with_dev_stopped(&trial.cluster, async || {
            kill(server(&trial.cluster)?).await?;
            fs::remove_dir_all(&store)?;
            fs::rename(&copy, &store).context("putting the copy back")
        })
        .await?;
        trial.hit(1);
        trial.until_work_is_done(8).await?;
    }
    trial.finish().await?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}

/// What an administrator may do by mistake, each in turn.
const ACCIDENTS: [&str; 4] = [
    "STREAM.PURGE.TASKER_WORK",
    "STREAM.DELETE.TASKER_WORK",
    "STREAM.PURGE.TASKER_CONTROL",
    "STREAM.DELETE.TASKER_CONTROL",
];

/// How soon after an accident all work must have ended.
const HEALED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn f10_streams_are_purged_and_deleted() -> anyhow::Result<()> {
    let rounds = Rounds { few: 4, all: 20, at_a_time: 20 };
    let Some((mut trial, rounds)) = Trial::start("F10 streams deleted", rounds).await? else {
        return Ok(());
    };
    for round in 0..rounds {
        let mut wire = trial.cluster.wire().await?;
        let accident = ACCIDENTS[round as usize % ACCIDENTS.len()];
        let answer = wire.request(&format!("$JS.API.{accident}"), &[], b"").await?;
        ensure!(answer.body["success"] == true, "{accident}: {answer:?}");
        trial.hit(1);
        trial.until_work_is_done(8).await?;
    }
    trial.finish_within(HEALED).await?;
    Ok(())
}

#[tokio::test]
async fn f10_consumers_are_deleted() -> anyhow::Result<()> {
    let rounds = Rounds { few: 2, all: 20, at_a_time: 20 };
    let Some((mut trial, rounds)) = Trial::start("F10 consumers deleted", rounds).await? else {
        return Ok(());
    };
    for _ in 0..rounds {
        delete_consumers(&mut trial).await?;
    }
    trial.finish_within(HEALED).await?;
    Ok(())
}

/// Deletes every consumer of work.
pub(super) async fn delete_consumers(trial: &mut Trial) -> anyhow::Result<()> {
    let mut wire = trial.cluster.wire().await?;
    let list = wire.request("$JS.API.CONSUMER.NAMES.TASKER_WORK", &[], b"").await?;
    let names = list.body["consumers"].as_array().context("consumers")?.clone();
    for name in names.iter().filter_map(|name| name.as_str()) {
        let subject = format!("$JS.API.CONSUMER.DELETE.TASKER_WORK.{name}");
        let answer = wire.request(&subject, &[], b"").await?;
        trial.hit(u64::from(answer.body["success"] == true));
    }
    trial.until_work_is_done(8).await
}
