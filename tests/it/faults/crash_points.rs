//! F3: processes that end before or after a commit, a publish, an answer, an acknowledgement.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use tasker_guards::CrashPoint;
use tasker_tests::{Process, until};

use super::trial::{Rounds, Trial};

/// For a process to come by, perhaps only when messages of one that ended are delivered again.
const REACHED: Duration = Duration::from_secs(60);
/// For another one to be in its place.
const REPLACED: Duration = Duration::from_secs(20);

/// The points that `TASKER_CRASH_POINTS` asks for: one by its name, or all of them. Without it there are none,
/// as only the build of `scripts/mutants` has them.
fn points() -> anyhow::Result<Vec<CrashPoint>> {
    let Ok(wanted) = std::env::var("TASKER_CRASH_POINTS") else { return Ok(Vec::new()) };
    let is_wanted = |point: &CrashPoint| wanted == "all" || wanted == format!("{point:?}");
    let points: Vec<CrashPoint> = CrashPoint::ALL.into_iter().filter(is_wanted).collect();
    ensure!(!points.is_empty(), "TASKER_CRASH_POINTS={wanted}: not a crash point, nor `all`");
    Ok(points)
}

/// Needs a build that has the points: `scripts/mutants crash-points` makes one and runs this.
#[tokio::test]
async fn f3_processes_end_at_crash_points() -> anyhow::Result<()> {
    let points = points()?;
    if points.is_empty() {
        return Ok(());
    }
    let rounds = Rounds { few: 5, all: 10, at_a_time: 5 };
    let Some((mut trial, rounds)) = Trial::start("F3 crash points", rounds).await? else {
        return Ok(());
    };
    let file = trial.cluster.scratch().path().join("crash");
    let draft = trial.cluster.scratch().path().join("crash-draft");
    for _ in 0..rounds {
        for point in &points {
            let before = trial.cluster.state()?.pids;
            fs::write(&draft, format!("{point:?}"))?;
            fs::rename(&draft, &file)?;
            until("a process has ended there", REACHED, async || Ok(!file.exists()))
                .await
                .with_context(|| format!("{point:?}"))?;
            trial.hit(1);
            until("another is in its place", REPLACED, async || {
                let now = trial.cluster.state()?.pids;
                let runs = |pid| Process::running(pid).is_ok_and(Process::is_alive);
                Ok(now != before && now.nodes().all(runs))
            })
            .await
            .with_context(|| format!("{point:?}"))?;
            trial.until_work_is_done(2).await?;
        }
    }
    trial.finish().await?;
    Ok(())
}
