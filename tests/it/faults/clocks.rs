//! Clocks of the wall that jump.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::trial::{Rounds, Trial};

const HOUR: i64 = 3_600;
/// How wrong the clocks of all nodes are, in seconds, one after the other: they jump forwards and
/// backwards, by as much as two days.
const WRONG: [i64; 8] = [HOUR, -HOUR, 24 * HOUR, 0, -24 * HOUR, 24 * HOUR, 5, -5];
/// How long they are.
const TIME: Duration = Duration::from_secs(5);
/// In the meantime work goes on.
const RESUMED: Duration = Duration::from_secs(20);

#[tokio::test]
async fn f16_clocks_jump() -> anyhow::Result<()> {
    let rounds = Rounds { few: 0, all: 40, at_a_time: 16 };
    let Some((mut trial, rounds)) = Trial::with_clock("F16 clocks wrong", rounds).await? else {
        return Ok(());
    };
    // Those that an orchestrator takes for today.
    let mut days = BTreeSet::new();
    for round in 0..rounds {
        let wrong = WRONG[round as usize % WRONG.len()];
        trial.cluster.clock()?.set(wrong)?;
        tokio::time::sleep(TIME).await;
        trial.until_work_goes_on(RESUMED).await.with_context(|| format!("{wrong} s"))?;
        days.extend(trial.cluster.api()?.get("/metrics").await?.day);
        trial.hit(1);
    }
    trial.cluster.clock()?.set(0)?;
    trial.finish().await?;
    // What HTTP writes into its answers is kept while the clock is behind it: yesterday does not show.
    ensure!(rounds < 6 || days.len() > 1, "the clocks of the nodes were right: {days:?}");
    Ok(())
}
