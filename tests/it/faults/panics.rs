//! F19: actors that panic, and loops beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tasker_guards::PANIC_POINTS;
use tasker_tests::{Cluster, Process, until};
use tokio::time::MissedTickBehavior;

use super::trial::{Rounds, Trial, data_dir};

/// Between two panics.
const EVERY: Duration = Duration::from_secs(1);
/// For a part that was told to panic to come by.
const REACHED: Duration = Duration::from_secs(20);
/// From the last panic until work goes on as before.
const RESUMED: Duration = Duration::from_secs(20);
/// For a process that has given up to be replaced.
const REPLACED: Duration = Duration::from_secs(60);
/// What the memory of a node may grow by. Nobody can ask a mailbox how much waits in it; what waits is in
/// memory.
const MOST_GROWTH_MIB: f64 = 96.0;

/// Where parts are told to panic, by a file of their name.
fn told(cluster: &Cluster, point: &str) -> PathBuf {
    cluster.scratch().path().join("panics").join(point)
}

async fn until_it_has_panicked(cluster: &Cluster, point: &str) -> anyhow::Result<()> {
    let file = told(cluster, point);
    let panicked = until("it has panicked", REACHED, async || Ok(!file.exists())).await;
    panicked.with_context(|| point.to_owned())
}

/// Sees to it that an actor that is seldom sent anything comes by.
async fn provoke(cluster: &Cluster, point: &str) -> anyhow::Result<Option<String>> {
    match point {
        "checkpoints" => {
            let context = json!({"total_items": 400, "items_per_checkpoint": 10});
            let task = cluster.api()?.submit("data_processing", "resumable_batch", context).await?;
            Ok(Some(task))
        }
        // A pull loop that is new claims what it finds.
        "worker_claims" => {
            fs::write(told(cluster, "worker_intake.queue"), "")?;
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn memory(cluster: &Cluster) -> anyhow::Result<Vec<f64>> {
    cluster.state()?.pids.nodes().map(|pid| Process::running(pid)?.rss_mib()).collect()
}

/// What one node has written about its actors.
#[derive(Debug, Default, PartialEq, Eq)]
struct Story {
    /// Parts that have panicked.
    panicked: BTreeMap<String, u64>,
    /// Actors that have died.
    died: BTreeMap<String, u64>,
    /// Actors that run again.
    revived: BTreeMap<String, u64>,
    /// Actors that live on, although they have panicked, or a loop of theirs.
    unaware: BTreeSet<String>,
}

impl Story {
    fn read(text: &str) -> Self {
        let mut story = Self::default();
        for line in text.lines() {
            let actor = || {
                let (_, rest) = line.split_once("actor=\"")?;
                Some(rest.split_once('"')?.0.to_owned())
            };
            let (count, name) = if let Some(point) = line.strip_prefix("told to panic: ") {
                let actor = point.split('.').next().unwrap_or(point);
                story.unaware.insert(actor.to_owned());
                (&mut story.panicked, point.to_owned())
            } else if line.contains("actor died") {
                let name = actor().unwrap_or_default();
                story.unaware.remove(&name);
                (&mut story.died, name)
            } else if line.contains("actor runs again") {
                (&mut story.revived, actor().unwrap_or_default())
            } else {
                continue;
            };
            *count.entry(name).or_default() += 1;
        }
        story
    }

    /// Whether each panic of an actor has ended it, each dead loop its actor, and each of them lives. An actor
    /// that panics before it has looked after its loops ends once for both.
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.died == self.revived, "not all that died run again: {self:?}");
        ensure!(self.unaware.is_empty(), "not all that panicked have died: {self:?}");
        for (name, own) in self.panicked.iter().filter(|(name, _)| !name.contains('.')) {
            let died = self.died.get(name).copied().unwrap_or(0);
            ensure!(died >= *own, "{name} has died {died} times: {self:?}");
        }
        Ok(())
    }
}

/// What each node has written.
fn stories(logs: &Path) -> anyhow::Result<Vec<Story>> {
    let mut stories = Vec::new();
    for file in fs::read_dir(logs)? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("worker") || name.starts_with("orchestrator") {
            stories.push(Story::read(&fs::read_to_string(&path)?));
        }
    }
    Ok(stories)
}

/// Needs a build that has the points: `scripts/mutants panics` makes one and runs this. A round is a
/// second, and one part of one process that panics.
#[tokio::test]
async fn f19_actors_panic() -> anyhow::Result<()> {
    if std::env::var_os("TASKER_CRASH_POINTS").is_none() {
        return Ok(());
    }
    let each_once = PANIC_POINTS.len() as u64;
    let rounds = Rounds { few: each_once, all: 60, at_a_time: 60 };
    let Some((mut trial, rounds)) = Trial::start("F19 actors panic", rounds).await? else {
        return Ok(());
    };
    let (pids, memory_before) = (trial.cluster.state()?.pids, memory(&trial.cluster)?);
    let mut checkpointed = Vec::new();
    let mut seconds = tokio::time::interval(EVERY);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 0..rounds {
        seconds.tick().await;
        let point = PANIC_POINTS[round as usize % PANIC_POINTS.len()];
        // Told before, it may not have come by yet.
        until_it_has_panicked(&trial.cluster, point).await?;
        fs::write(told(&trial.cluster, point), "")?;
        checkpointed.extend(provoke(&trial.cluster, point).await?);
        trial.hit(1);
    }
    for point in PANIC_POINTS {
        until_it_has_panicked(&trial.cluster, point).await?;
    }
    trial.until_work_goes_on(RESUMED).await?;
    let memory = memory(&trial.cluster)?;
    let growth = memory.iter().zip(&memory_before).map(|(now, before)| now - before);
    let growth = growth.fold(0.0, f64::max);
    trial.note("growth_mib", growth as u64);
    for id in checkpointed {
        let task = trial.cluster.api()?.wait(&id, RESUMED).await?;
        ensure!(task.state() == "complete", "{}", task.view);
    }
    let stories = stories(&data_dir(&trial.cluster).join("logs"))?;
    trial.note("restarts", stories.iter().flat_map(|story| story.died.values()).sum());
    let seen = trial.finish().await?;
    ensure!(seen.cluster.state()?.pids == pids, "a process has ended");
    ensure!(growth < MOST_GROWTH_MIB, "a node has grown by {growth} MiB");
    let panicked: BTreeSet<&str> =
        stories.iter().flat_map(|story| story.panicked.keys()).map(String::as_str).collect();
    let missing: Vec<_> = PANIC_POINTS.iter().filter(|p| !panicked.contains(*p)).collect();
    ensure!(missing.is_empty() || rounds < each_once, "{missing:?} never panicked");
    stories.iter().try_for_each(Story::check)
}

/// Beyond its budget an actor takes its process with it, and whatever runs that starts it anew.
#[tokio::test]
async fn f19_an_actor_panics_again_and_again() -> anyhow::Result<()> {
    if std::env::var_os("TASKER_CRASH_POINTS").is_none() {
        return Ok(());
    }
    let rounds = Rounds { few: 2, all: 10, at_a_time: 10 };
    let Some((mut trial, rounds)) = Trial::start("F19 actor hopeless", rounds).await? else {
        return Ok(());
    };
    for round in 0..rounds {
        let point = ["dispatch", "worker_intake"][round as usize % 2];
        let before = trial.cluster.state()?.pids;
        until("a process gives up", REPLACED, async || {
            until_it_has_panicked(&trial.cluster, point).await?;
            let gave_up = trial.cluster.state()?.pids != before;
            if !gave_up {
                fs::write(told(&trial.cluster, point), "")?;
            }
            Ok(gave_up)
        })
        .await
        .with_context(|| point.to_owned())?;
        trial.hit(1);
        trial.until_work_is_done(8).await?;
    }
    trial.finish().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_actors_is_read_from_a_log() -> anyhow::Result<()> {
        let died =
            |actor| format!("ERROR actor died; it is started again actor=\"{actor}\" reason=1\n");
        let lives = |actor| format!("INFO actor runs again actor=\"{actor}\"\n");
        let panics = |point| format!("thread 'a' panicked at b:1:\ntold to panic: {point}\n");
        let log = [panics("a"), died("a"), lives("a"), panics("a.x"), panics("a.y"), died("a")];
        let dead = Story::read(&log.concat());
        assert_eq!(dead.died, BTreeMap::from([("a".to_owned(), 2)]));
        assert!(dead.check().is_err());
        let alive = log.concat() + &lives("a");
        Story::read(&alive).check()?;
        // One of these was not noticed.
        assert!(Story::read(&(alive + &panics("a"))).check().is_err());
        let together = [panics("a.x"), panics("a"), died("a"), lives("a")].concat();
        Story::read(&together).check()?;
        assert!(Story::read(&(together + &panics("a.x"))).check().is_err());
        Ok(())
    }
}
