//! Clocks of the wall that jump.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use tasker_tests::Cluster;

use super::trial::{Rounds, Trial, data_dir};

const HOUR: i64 = 3_600;
/// How wrong the clocks of all nodes are, in seconds, one after the other: they jump forwards and
/// backwards, by as much as two days.
const WRONG: [i64; 8] = [HOUR, -HOUR, 24 * HOUR, 0, -24 * HOUR, 24 * HOUR, 5, -5];
/// How long they are.
const TIME: Duration = Duration::from_secs(5);
/// In the meantime work goes on.
const RESUMED: Duration = Duration::from_secs(20);

/// Days at which lines of the logs of nodes are said to have been written.
fn days(cluster: &Cluster) -> anyhow::Result<usize> {
    let mut days = std::collections::BTreeSet::new();
    for file in fs::read_dir(data_dir(cluster).join("logs"))? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("worker") || name.starts_with("orchestrator") {
            let text = fs::read_to_string(&path)?;
            days.extend(
                text.lines()
                    .filter_map(|line| Some(line.get(..11)?.to_owned()))
                    .filter(|day| day.starts_with("20") && day.ends_with('T')),
            );
        }
    }
    Ok(days.len())
}

#[tokio::test]
async fn f16_clocks_jump() -> anyhow::Result<()> {
    let rounds = Rounds { few: 0, all: 40, at_a_time: 16 };
    let Some((mut trial, rounds)) = Trial::with_clock("F16 clocks wrong", rounds).await? else {
        return Ok(());
    };
    for round in 0..rounds {
        let wrong = WRONG[round as usize % WRONG.len()];
        trial.cluster.clock()?.set(wrong)?;
        tokio::time::sleep(TIME).await;
        trial.until_work_goes_on(RESUMED).await.with_context(|| format!("{wrong} s"))?;
        trial.hit(1);
    }
    trial.cluster.clock()?.set(0)?;
    let seen = trial.finish().await?;
    // Nodes write little while all is well: that they are told to end shows what they take for now.
    let days = days(&seen.cluster)?;
    ensure!(rounds < 6 || days > 1, "the clocks of the nodes were right");
    Ok(())
}
