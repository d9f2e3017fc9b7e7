//! Disks that are full for a while.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use tasker_tests::{Cluster, Process, Volume, until};

use super::trial::{Rounds, Trial, data_dir};

/// For a server to notice that its disk is full: it writes all the time.
const NOTICED: Duration = Duration::from_secs(60);
/// How long it stays full after that.
const FULL: Duration = Duration::from_secs(10);
/// From the moment when there is room again until work is accepted and done.
const RESUMED: Duration = Duration::from_secs(30);

/// What servers say of a full disk. A file that nats-server cannot make is only missing later.
const COMPLAINTS: [&str; 2] = ["no space left", "critical write error"];

/// How often a server has complained so far.
fn complaints(cluster: &Cluster, log: &str) -> anyhow::Result<usize> {
    let path = data_dir(cluster).join("logs").join(log);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let text = text.to_lowercase();
    Ok(COMPLAINTS.iter().map(|complaint| text.matches(complaint).count()).sum())
}

async fn fill_again_and_again(
    name: &'static str,
    rounds: Rounds,
    log: &str,
    volume: fn(&Cluster) -> anyhow::Result<&Volume>,
    recover: fn(&Cluster) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some((mut trial, rounds)) = Trial::on_volumes(name, rounds).await? else { return Ok(()) };
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let before = complaints(&trial.cluster, log)?;
        volume(&trial.cluster)?.fill()?;
        let noticed = until("the server notices", NOTICED, async || {
            Ok(complaints(&trial.cluster, log)? > before)
        });
        noticed.await?;
        tokio::time::sleep(FULL).await;
        volume(&trial.cluster)?.make_room()?;
        recover(&trial.cluster)?;
        let healed = std::time::Instant::now();
        trial.until_work_goes_on(RESUMED).await.with_context(|| format!("round {round}"))?;
        slowest = slowest.max(healed.elapsed());
        trial.hit(1);
    }
    trial.note("slowest_resumption_ms", slowest.as_millis() as u64);
    trial.finish().await?;
    Ok(())
}

const ROUNDS: Rounds = Rounds { few: 0, all: 20, at_a_time: 5 };

fn postgres(cluster: &Cluster) -> anyhow::Result<&Volume> {
    Ok(&cluster.volumes()?.postgres)
}

fn nats(cluster: &Cluster) -> anyhow::Result<&Volume> {
    Ok(&cluster.volumes()?.nats)
}

#[tokio::test]
async fn f15_the_disk_of_postgres_is_full() -> anyhow::Result<()> {
    fill_again_and_again("F15 Postgres disk full", ROUNDS, "postgres.log", postgres, |_| Ok(()))
        .await
}

/// What an operator has to do: since its write failed, nats-server keeps the stream closed, room or not,
/// until it is started again.
fn restart(cluster: &Cluster) -> anyhow::Result<()> {
    Process::running(cluster.state()?.pids.nats)?.signal(Signal::SIGTERM)
}

#[tokio::test]
async fn f15_the_disk_of_the_bus_is_full() -> anyhow::Result<()> {
    fill_again_and_again("F15 bus disk full", ROUNDS, "nats-server.log", nats, restart).await
}
