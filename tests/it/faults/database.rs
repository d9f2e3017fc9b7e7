//! Faults of Postgres.

use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use tasker_tests::{Cluster, Process, until};

use super::trial::{Rounds, Trial};

const SOON: Duration = Duration::from_secs(30);

/// What `pg_ctl stop -m immediate` sends: the server ends at once and recovers when it starts.
const IMMEDIATE: Signal = Signal::SIGQUIT;

fn server(cluster: &Cluster) -> anyhow::Result<Process> {
    Process::running(cluster.state()?.pids.postgres)
}

pub(super) async fn stop_again_and_again(
    trial: &mut Trial,
    rounds: u64,
    signal: Signal,
) -> anyhow::Result<()> {
    for _ in 0..rounds {
        let process = server(&trial.cluster)?;
        process.signal(signal)?;
        until("Postgres has ended", SOON, async || Ok(!process.is_alive())).await?;
        trial.hit(1);
        until("another one runs", SOON, async || {
            Ok(server(&trial.cluster).is_ok_and(|next| next != process))
        })
        .await?;
        trial.until_work_is_done(8).await?;
    }
    Ok(())
}

#[tokio::test]
async fn f12_the_server_is_stopped_at_once() -> anyhow::Result<()> {
    let rounds = Rounds { few: 2, all: 60, at_a_time: 20 };
    let Some((mut trial, rounds)) = Trial::start("F12 Postgres stopped", rounds).await? else {
        return Ok(());
    };
    stop_again_and_again(&mut trial, rounds, IMMEDIATE).await?;
    trial.finish().await?;
    Ok(())
}

#[tokio::test]
async fn f12_the_server_is_killed() -> anyhow::Result<()> {
    let rounds = Rounds { few: 1, all: 20, at_a_time: 10 };
    let Some((mut trial, rounds)) = Trial::start("F12 Postgres killed", rounds).await? else {
        return Ok(());
    };
    stop_again_and_again(&mut trial, rounds, Signal::SIGKILL).await?;
    trial.finish().await?;
    Ok(())
}

/// Connections end in the middle of whatever they do, twenty a second.
#[tokio::test]
async fn f13_connections_are_ended() -> anyhow::Result<()> {
    let rounds = Rounds { few: 10, all: 60, at_a_time: 60 };
    let Some((mut trial, rounds)) = Trial::start("F13 connections ended", rounds).await? else {
        return Ok(());
    };
    end_connections(&mut trial, rounds * 20).await?;
    let seen = trial.finish().await?;
    ensure!(seen.done.batches > 0, "no batch ended");
    Ok(())
}

/// Ends so many connections, one after the other.
pub(super) async fn end_connections(trial: &mut Trial, times: u64) -> anyhow::Result<()> {
    let end_one = "select count(pg_terminate_backend(pid)) as n from (
        select pid from pg_stat_activity
        where application_name like 'tasker %' order by random() limit 1) a";
    for _ in 0..times {
        let row = trial.cluster.database()?.row(end_one).await?;
        trial.hit(row["n"].as_u64().context("a number")?);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(())
}
