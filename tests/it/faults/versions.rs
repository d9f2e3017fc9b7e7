//! F21: nodes of two releases at work together, a schema that changes under them, and the way back.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use tasker_tests::{Cluster, Tool, until};

use super::ledger::count;
use super::processes::{CHARGED, REPLACED, Role, orchestrators, victim, workers};
use super::trial::{Rounds, Trial, data_dir};

/// For work to go on, whatever runs beside whatever.
const GOES_ON: Duration = Duration::from_secs(20);
/// The same where a worker may be of a release that knows no bundles: it acknowledges more than it has run,
/// which shows when the batch stands still.
const FOUND: Duration = Duration::from_secs(30);
/// Workflows that a mixture of releases does before it changes.
const MIXED: u64 = 40;
/// Three workers are replaced three times.
const WORKER_ENDS: usize = 9;
/// What is picked for one of them at a time.
const SLOTS: usize = 32;
/// For a table to be free for a moment.
const FREE: Duration = Duration::from_secs(60);

/// Needs another build: `scripts/upgrade` makes one and runs this.
#[tokio::test]
async fn f21_releases_are_mixed() -> anyhow::Result<()> {
    let Some(previous) = std::env::var_os("TASKER_PREVIOUS_BIN") else { return Ok(()) };
    let (previous, next) = (Tool::at(previous.as_ref())?, Tool::find()?);
    // A rehearsal is never left out.
    let rounds = Rounds { few: 1, all: u64::MAX, at_a_time: 1 };
    let started = Trial::of_build("F21 releases mixed", rounds, &previous).await?;
    let Some((mut trial, _)) = started else { return Ok(()) };
    trial.until_work_goes_on(GOES_ON).await?;
    let before = steps_applied(&trial.cluster).await?;
    migrate(&trial, &next).await?;
    let applied = steps_applied(&trial.cluster).await? - before;
    trial.note("migrations", applied);
    let (workers, orchestrators): (Role, Role) = (workers, orchestrators);
    // Orchestrators of the previous release have workers of the next one.
    replace(&mut trial, &next, workers).await?;
    replace(&mut trial, &next, orchestrators).await?;
    // The way back: the next one's have workers of the previous one, then all are of that, and the schema
    // is not.
    replace(&mut trial, &previous, workers).await?;
    replace(&mut trial, &previous, orchestrators).await?;
    migrate(&trial, &previous).await.context("the previous release does not take the schema")?;
    // Forward again, the other way round.
    replace(&mut trial, &next, orchestrators).await?;
    replace(&mut trial, &next, workers).await?;
    let refused = refused_plans(&trial.cluster)?;
    let charged = count(&trial.cluster, &format!("select count(*) from ({CHARGED}) c")).await?;
    trial.note("charged", charged);
    let seen = trial.finish().await?;
    ensure!(refused == 0, "{refused} statements had another result than before");
    // The server gives a worker that ends what it has just picked for it. Orchestrators of the previous
    // release may charge a try for that, and no run.
    ensure!(seen.executions.wasted == 0, "{} runs were in vain", seen.executions.wasted);
    let charged = seen.cluster.database()?.rows(CHARGED).await?;
    let picked = charged.as_array().map_or(0, Vec::len);
    ensure!(picked <= WORKER_ENDS * SLOTS, "attempts were burnt by the upgrade: {charged}");
    Ok(())
}

/// Every process of a role is told to end, one after the other, and is started again as this build.
async fn replace(trial: &mut Trial, build: &Tool, role: Role) -> anyhow::Result<()> {
    trial.cluster.installed()?.replace(build)?;
    for place in 0..role(&trial.cluster)?.len() {
        let process = victim(&trial.cluster, role, place as u64).await?;
        process.signal(Signal::SIGTERM)?;
        until("it has ended", REPLACED, async || Ok(!process.is_alive())).await?;
        let next = victim(&trial.cluster, role, place as u64).await?;
        ensure!(trial.cluster.installed()?.is_run_by(next)?, "it runs what was there before");
        trial.hit(1);
        trial.until_work_goes_on(FOUND).await?;
    }
    trial.until_work_is_done(MIXED).await
}

/// How many steps the schema has come.
async fn steps_applied(cluster: &Cluster) -> anyhow::Result<u64> {
    count(cluster, "select count(*) from _sqlx_migrations where success").await
}

/// Holds on to each table for longer than work may stand still.
const LONG: &str = "select count(*) from tasker.tasks; select count(*) from tasker.steps;
    select count(*) from tasker.batches; select pg_sleep(30)";
const IS_LONG: &str = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";

/// Migrates as an operator does: with the release's own `tasker`, while nodes work and somebody's long
/// transaction is in the way.
async fn migrate(trial: &Trial, build: &Tool) -> anyhow::Result<()> {
    let (cluster, begun) = (&trial.cluster, Instant::now());
    let url = cluster.state()?.database_url;
    let mut long = cluster.database()?.begin(LONG)?;
    until("somebody reads", GOES_ON, async || Ok(count(cluster, IS_LONG).await? > 0)).await?;
    let before = steps_applied(cluster).await?;
    let command = ["migrate", "--database-url", &url];
    let (migrated, goes_on) = tokio::join!(build.run(&command), trial.until_work_goes_on(GOES_ON));
    goes_on.context("while the schema changes")?;
    let migrated = migrated?;
    ensure!(migrated.code == 0, "{migrated:?}");
    let waited = steps_applied(cluster).await? > before;
    ensure!(!waited || begun.elapsed() > GOES_ON, "nobody was in the way of the migration");
    long.kill().await?;
    trial.until_work_goes_on(GOES_ON).await
}

/// How often Postgres has refused a statement because its result is of another type than when it was
/// prepared.
fn refused_plans(cluster: &Cluster) -> anyhow::Result<u64> {
    let log = data_dir(cluster).join("logs/postgres.log");
    let log = fs::read(&log).with_context(|| log.display().to_string())?;
    let log = String::from_utf8_lossy(&log);
    Ok(log.lines().filter(|line| line.contains("cached plan must not change")).count() as u64)
}

/// Migrations are not to do this. One that does costs each connection one statement, which is repeated.
#[tokio::test]
async fn f21_results_change_their_type() -> anyhow::Result<()> {
    let rounds = Rounds { few: 2, all: 40, at_a_time: 20 };
    let Some((mut trial, rounds)) = Trial::start("F21 result types changed", rounds).await? else {
        return Ok(());
    };
    for round in 0..rounds {
        let now = ["varchar", "text"][round as usize % 2];
        let connections =
            "select count(*) from pg_stat_activity where application_name like 'tasker %'";
        let connections = count(&trial.cluster, connections).await?;
        let before = refused_plans(&trial.cluster)?;
        let change = format!(
            "set lock_timeout = '1s'; alter table tasker.steps alter column name type {now}"
        );
        let database = trial.cluster.database()?;
        until("it has changed", FREE, async || Ok(database.run(&change).await.is_ok())).await?;
        trial.until_work_goes_on(GOES_ON).await?;
        let refused = refused_plans(&trial.cluster)? - before;
        ensure!(refused <= connections, "{refused} refusals of {connections} connections");
        trial.hit(refused);
    }
    trial.finish().await?;
    Ok(())
}
