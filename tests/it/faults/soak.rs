//! One cluster for an hour or a night, hurt in all the ways that need no proxy, with `tasker verify`
//! ten seconds after the last one has ended, and a look at what grows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tasker_tests::{Cluster, Database, DevState, Process, Tool};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

use super::trial::{Rounds, Trial, verify_at};
use super::{bus, database, processes};

/// How long it goes on; only `make soak` says so.
const MINUTES: &str = "TASKER_SOAK_MINUTES";
/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// After each fault work goes on within this time.
const RESUMED: Duration = Duration::from_secs(60);
/// A quarter of the time nothing is done.
const QUIET: Duration = Duration::from_secs(10);
/// Dead rows of a table may be as many as the living, and so many more.
const FEW_ROWS: u64 = 20_000;

/// What is done to it, in turn.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillWorker,
    KillOrchestrator,
    FreezeWorker,
    FreezeOrchestrator,
    KillBus,
    LoseStore,
    DeleteConsumers,
    StopPostgres,
    EndConnections,
}

const MIX: [Fault; 9] = [
    Fault::KillWorker,
    Fault::KillOrchestrator,
    Fault::KillBus,
    Fault::EndConnections,
    Fault::FreezeWorker,
    Fault::StopPostgres,
    Fault::DeleteConsumers,
    Fault::FreezeOrchestrator,
    Fault::LoseStore,
];

impl Fault {
    /// Whether it ends connections to Postgres, that of a look among them.
    fn hits_postgres(self) -> bool {
        matches!(self, Self::StopPostgres | Self::EndConnections)
    }

    async fn happen(self, trial: &mut Trial, round: u64) -> anyhow::Result<()> {
        match self {
            Self::KillWorker => processes::kill_in_turn(trial, processes::workers, 5).await,
            Self::KillOrchestrator => {
                processes::kill_in_turn(trial, processes::orchestrators, 5).await
            }
            Self::FreezeWorker => processes::freeze(trial, processes::workers, round).await,
            Self::FreezeOrchestrator => {
                processes::freeze(trial, processes::orchestrators, round).await
            }
            Self::KillBus => bus::kill_server(trial).await,
            Self::LoseStore => bus::lose_store(trial).await,
            Self::DeleteConsumers => bus::delete_consumers(trial).await,
            Self::StopPostgres => database::stop_again_and_again(trial, 1, Signal::SIGQUIT).await,
            Self::EndConnections => database::end_connections(trial, 10).await,
        }
    }
}

/// What was seen at one look.
struct Sample {
    hours: f64,
    /// The largest of each.
    orchestrator_mib: f64,
    worker_mib: f64,
    /// Of the table with the most of them beyond its living ones.
    surplus_dead_rows: u64,
    database_mib: f64,
    /// How long `tasker verify` took.
    verify_s: f64,
}

/// Looks until it is told to stop.
struct Watch {
    tool: Tool,
    state: DevState,
    database: Database,
    begun: Instant,
    samples: Vec<Sample>,
    /// Held by a look, and by what would end it: of a database that has grown one takes so long that each
    /// would be ended.
    looking: Arc<Mutex<()>>,
}

const TABLES: &str = "select
    coalesce(max(n_dead_tup - n_live_tup), 0)::bigint as surplus,
    (pg_database_size(current_database()) / 1048576.0)::float8 as mib
    from pg_stat_user_tables where schemaname = 'tasker'";

impl Watch {
    fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let (tool, state, database) =
            (cluster.tool().clone(), cluster.state()?, cluster.database()?);
        let (begun, samples, looking) = (Instant::now(), Vec::new(), Arc::default());
        Ok(Self { tool, state, database, begun, samples, looking })
    }

    /// Begins to look.
    fn start(
        mut self,
        cluster_state: impl Fn() -> anyhow::Result<DevState> + Send + 'static,
    ) -> (oneshot::Sender<()>, JoinHandle<anyhow::Result<Vec<Sample>>>) {
        let (stop, mut stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            loop {
                let looking = Arc::clone(&self.looking);
                let looks = looking.lock().await;
                if let Ok(state) = cluster_state() {
                    self.state = state;
                }
                let found = self.look().await?;
                ensure!(found["ok"] == true, "an invariant is broken: {found:#}");
                drop(looks);
                let is_over = tokio::time::timeout(LOOK, &mut stopped).await.is_ok();
                if is_over {
                    return Ok(self.samples);
                }
            }
        });
        (stop, task)
    }

    async fn look(&mut self) -> anyhow::Result<Value> {
        let begun = Instant::now();
        let found = verify_at(&self.tool, &self.state.database_url, &[]).await?;
        let verify_s = begun.elapsed().as_secs_f64();
        let tables = self.database.row(TABLES).await?;
        let largest = |pids: &[i32]| {
            let living = pids.iter().filter_map(|&pid| Process::running(pid).ok()?.rss_mib().ok());
            living.fold(0.0, f64::max)
        };
        self.samples.push(Sample {
            hours: self.begun.elapsed().as_secs_f64() / 3600.0,
            orchestrator_mib: largest(&self.state.pids.orchestrators),
            worker_mib: largest(&self.state.pids.workers),
            surplus_dead_rows: tables["surplus"].as_u64().unwrap_or(0),
            database_mib: tables["mib"].as_f64().context("a size")?,
            verify_s,
        });
        Ok(found)
    }
}

/// By how much something grows in an hour, by least squares, beginning after a fifth of the time:
/// caches fill first.
fn slope(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let samples = &samples[samples.len() / 5..];
    let n = samples.len() as f64;
    let mean = |f: &dyn Fn(&Sample) -> f64| samples.iter().map(f).sum::<f64>() / n;
    let (x, y) = (mean(&|sample| sample.hours), mean(&of));
    let both: f64 = samples.iter().map(|s| (s.hours - x) * (of(s) - y)).sum();
    let square: f64 = samples.iter().map(|s| (s.hours - x).powi(2)).sum();
    if square == 0.0 { 0.0 } else { both / square }
}

#[tokio::test]
async fn f24_a_soak() -> anyhow::Result<()> {
    let Ok(minutes) = std::env::var(MINUTES) else { return Ok(()) };
    let minutes: u64 = minutes.parse().with_context(|| format!("{MINUTES}={minutes}"))?;
    let rounds = Rounds { few: minutes, all: u64::MAX, at_a_time: minutes };
    let Some((mut trial, _)) = Trial::start("F24 soak", rounds).await? else { return Ok(()) };
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let state_file = super::trial::data_dir(&trial.cluster).join("dev.json");
    let state = move || Ok(serde_json::from_slice(&std::fs::read(&state_file)?)?);
    let watch = Watch::of(&trial.cluster)?;
    let looking = Arc::clone(&watch.looking);
    let (stop, watch) = watch.start(state);
    let mut round = 0;
    while Instant::now() < end && !watch.is_finished() {
        let fault = MIX[round as usize % MIX.len()];
        let nobody_looks = if fault.hits_postgres() { Some(looking.lock().await) } else { None };
        fault.happen(&mut trial, round).await?;
        trial.until_work_goes_on(RESUMED).await.with_context(|| format!("round {round}"))?;
        drop(nobody_looks);
        tokio::time::sleep(QUIET).await;
        round += 1;
    }
    // Whoever has failed does not listen any more, and says why below.
    let _has_failed = stop.send(());
    let samples = watch.await??;
    note(&mut trial, &samples);
    let seen = trial.finish().await?;
    ensure!(samples.len() > 1, "nobody looked: {}", samples.len());
    let dead = samples.iter().map(|sample| sample.surplus_dead_rows).max().unwrap_or(0);
    ensure!(
        dead <= FEW_ROWS,
        "{dead} dead rows more than living ones: {:?}",
        seen.done.accepted.len()
    );
    Ok(())
}

fn note(trial: &mut Trial, samples: &[Sample]) {
    let whole = |number: f64| number.max(0.0).round() as u64;
    let most = |of: fn(&Sample) -> f64| whole(samples.iter().map(of).fold(0.0, f64::max));
    trial.note("looks", samples.len() as u64);
    trial.note("orchestrator_mib_most", most(|sample| sample.orchestrator_mib));
    trial.note("orchestrator_mib_per_hour", whole(slope(samples, |s| s.orchestrator_mib)));
    trial.note("worker_mib_most", most(|sample| sample.worker_mib));
    trial.note("worker_mib_per_hour", whole(slope(samples, |s| s.worker_mib)));
    trial.note("database_mib_most", most(|sample| sample.database_mib));
    trial.note("verify_s_most", most(|sample| sample.verify_s));
    trial.note("surplus_dead_rows_most", most(|sample| sample.surplus_dead_rows as f64));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_per_hour_and_forgets_the_start() {
        let sample = |n: u32| Sample {
            hours: f64::from(n) / 2.0,
            orchestrator_mib: if n < 2 { 500.0 } else { 100.0 + f64::from(n) },
            worker_mib: 7.0,
            surplus_dead_rows: 0,
            database_mib: 0.0,
            verify_s: 0.0,
        };
        let samples: Vec<Sample> = (0..10).map(sample).collect();
        assert!((slope(&samples, |s| s.orchestrator_mib) - 2.0).abs() < 1e-9);
        assert!(slope(&samples, |s| s.worker_mib).abs() < 1e-9);
        assert!(slope(&samples[..1], |s| s.worker_mib).abs() < 1e-9);
    }
}
