//! F3: processes that end before or after a commit, a publish, an answer, an acknowledgement.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use tasker_guards::CrashPoint;
use tasker_tests::{Process, until};

use super::trial::{Rounds, Trial};

/// For a process to come by, perhaps only when messages of one that ended are delivered again.
const REACHED: Duration = Duration::from_secs(60);
/// For another one to be in its place.
const REPLACED: Duration = Duration::from_secs(20);

/// Needs a build that has the points: `scripts/mutants crash-points` makes one and runs this.
#[tokio::test]
async fn f3_processes_end_at_crash_points() -> anyhow::Result<()> {
    if std::env::var_os("TASKER_CRASH_POINTS").is_none() {
        return Ok(());
    }
    let rounds = Rounds { few: 1, all: 10, at_a_time: 5 };
    let Some((mut trial, rounds)) = Trial::start("F3 crash points", rounds).await? else {
        return Ok(());
    };
    let file = trial.cluster.scratch().path().join("crash");
    let draft = trial.cluster.scratch().path().join("crash-draft");
    for _ in 0..rounds {
        for point in CrashPoint::ALL {
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
