//! One trial: the standard load, a fault again and again, and the proof that nothing came of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tasker_tests::{Cluster, Rules, Tool, until};

use super::ledger::{self, Executions};
use super::load::{Done, Load};
use super::results;

/// For members of stopped batches and epochs of the bus to be worked off.
const AT_REST: Duration = Duration::from_secs(30);
/// `tasker verify` reads the whole database: after an hour of load that is some millions of rows, beside
/// the load.
const VERIFY_LIMIT: Duration = Duration::from_secs(600);

/// Of the schema of this build, which the cluster has at the end.
const BUNDLED: &str = "select count(*) from tasker.batches where bundled > 1";

/// A cluster under the standard load.
pub(super) struct Trial {
    name: &'static str,
    pub(super) cluster: Cluster,
    load: Load,
    rounds: u64,
    hits: u64,
    /// More numbers for the line of results.
    notes: Vec<(&'static str, u64)>,
}

/// How often a fault is made to happen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounds {
    /// In `make test`.
    pub(super) few: u64,
    /// In `make faults`, in all.
    pub(super) all: u64,
    /// In one cluster.
    pub(super) at_a_time: u64,
}

/// What was seen.
pub(super) struct Seen {
    pub(super) executions: Executions,
    pub(super) done: Done,
    /// Batches of which a message has brought several members.
    pub(super) bundled: u64,
    /// Still running.
    pub(super) cluster: Cluster,
}

impl Trial {
    /// Starts cluster and load, and returns when work is being done.
    ///
    /// Answers `None` if `make faults` has done enough of it already.
    pub(super) async fn start(
        name: &'static str,
        rounds: Rounds,
    ) -> anyhow::Result<Option<(Self, u64)>> {
        Self::of(name, rounds, Cluster::for_faults()).await
    }

    /// The same with proxies between nodes and servers.
    pub(super) async fn behind(
        name: &'static str,
        rounds: Rounds,
        rules: Rules,
    ) -> anyhow::Result<Option<(Self, u64)>> {
        Self::of(name, rounds, Cluster::behind_proxies(rules)).await
    }

    /// The same with disks that can be full.
    pub(super) async fn on_volumes(
        name: &'static str,
        rounds: Rounds,
    ) -> anyhow::Result<Option<(Self, u64)>> {
        Self::of(name, rounds, Cluster::on_volumes()).await
    }

    /// The same with clocks that can be wrong.
    pub(super) async fn with_clock(
        name: &'static str,
        rounds: Rounds,
    ) -> anyhow::Result<Option<(Self, u64)>> {
        Self::of(name, rounds, Cluster::with_clock()).await
    }

    /// The same with nodes of another build.
    pub(super) async fn of_build(
        name: &'static str,
        rounds: Rounds,
        build: &Tool,
    ) -> anyhow::Result<Option<(Self, u64)>> {
        Self::of(name, rounds, Cluster::of_build(build)).await
    }

    async fn of(
        name: &'static str,
        rounds: Rounds,
        cluster: impl Future<Output = anyhow::Result<Cluster>>,
    ) -> anyhow::Result<Option<(Self, u64)>> {
        let Some(rounds) = results::rounds_to_do(name, rounds)? else { return Ok(None) };
        let cluster = cluster.await?;
        let load = Load::start(&cluster).await?;
        let trial = Self { name, cluster, load, rounds, hits: 0, notes: Vec::new() };
        trial.until_work_is_done(4).await?;
        Ok(Some((trial, rounds)))
    }

    /// Waits until so many more workflows have ended.
    pub(super) async fn until_work_is_done(&self, workflows: u64) -> anyhow::Result<()> {
        let before = self.load.ended();
        let ended = until("workflows end", Duration::from_secs(90), async || {
            Ok(self.load.ended() >= before + workflows)
        });
        match ended.await {
            Ok(()) => Ok(()),
            Err(error) => Err(explained(&self.cluster, error).await),
        }
    }

    /// Waits until every workflow has ended that is under way, so that nothing is left that was held up.
    pub(super) async fn until_work_goes_on(&self, limit: Duration) -> anyhow::Result<()> {
        let before = self.load.by_lane();
        until("work goes on", limit, async || {
            let now = self.load.by_lane();
            Ok(before.iter().zip(now).all(|(before, now)| now > *before))
        })
        .await
    }

    /// Workflows that have ended so far.
    pub(super) fn ended(&self) -> u64 {
        self.load.ended()
    }

    /// Adds a number to the line of results.
    pub(super) fn note(&mut self, what: &'static str, number: u64) {
        self.notes.push((what, number));
    }

    /// Notes that the fault really happened.
    pub(super) fn hit(&mut self, times: u64) {
        self.hits += times;
    }

    /// Ends the load and checks everything: each task was accepted once and has ended as the formula
    /// says, the invariants hold, nothing ran twice.
    pub(super) async fn finish(self) -> anyhow::Result<Seen> {
        ensure!(self.hits > 0, "{}: the fault never happened", self.name);
        let done = match self.load.finish().await {
            Ok(done) => done,
            Err(error) => return Err(explained(&self.cluster, error).await),
        };
        let (at_rest, found) = settled(&self.cluster, &done.accepted).await?;
        let executions = ledger::read(&self.cluster).await?;
        let bundled = ledger::count(&self.cluster, BUNDLED).await?;
        let broken = |id: &str| {
            let all = found["invariants"].as_array().into_iter().flatten();
            all.filter(|i| i["id"] == id).filter_map(|i| i["violations"].as_u64()).sum::<u64>()
        };
        let mut line = json!({
            "rounds": self.rounds, "hits": self.hits, "tasks": done.accepted.len(),
            "steps": found["steps"], "outcomes": found["outcomes"],
            "lost": broken("I7") + broken("I8"), "doubled": executions.twice.len() as u64 + broken("I1"),
            "recovery_s": done.recovery.as_secs_f64(), "unknown_submits": done.unknown,
            "runs": executions.begun, "wasted_runs": executions.wasted,
            "bundled_batches": bundled,
        });
        for (what, number) in self.notes {
            line[what] = number.into();
        }
        results::record(self.name, &line)?;
        at_rest.with_context(|| format!("{found:#}")).with_context(|| offences(&found))?;
        executions.check()?;
        ensure!(done.batches > 0 && done.graphs > 0, "the load was none");
        Ok(Seen { executions, done, bundled, cluster: self.cluster })
    }

    /// The same; and all work must have ended so soon after the end of the fault, which is now.
    pub(super) async fn finish_within(self, limit: Duration) -> anyhow::Result<Seen> {
        let seen = self.finish().await?;
        let took = seen.done.recovery;
        ensure!(
            took <= limit,
            "the last work ended {took:?} after the fault, {limit:?} is the limit"
        );
        Ok(seen)
    }
}

/// An error with what `tasker verify` finds: what is stuck, and which counters are wrong.
async fn explained(cluster: &Cluster, error: anyhow::Error) -> anyhow::Error {
    match verify(cluster, &["--at-rest"]).await {
        Ok(found) => error.context(offences(&found)),
        Err(unread) => error.context(format!("nothing can be verified: {unread:#}")),
    }
}

/// The invariants that are broken, and how.
fn offences(found: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = found["invariants"].as_array().into_iter().flatten();
    let broken = all.filter(|invariant| invariant["ok"] == false).map(|invariant| {
        let offenders = invariant["offenders"].as_array().into_iter().flatten();
        // Many are offended in the same way.
        let what: BTreeSet<String> = offenders.map(|offender| text(&offender["what"])).collect();
        let what = what.into_iter().take(5).collect::<Vec<_>>().join(", ");
        let (id, rule, times) =
            (text(&invariant["id"]), text(&invariant["rule"]), &invariant["violations"]);
        format!("{id} ({rule}) is broken {times} times: {what}")
    });
    let broken: Vec<String> = broken.collect();
    if broken.is_empty() { "no invariant is broken".to_owned() } else { broken.join("; ") }
}

/// `tasker verify` until it finds everything at rest, and what it said last: the last sweeps may still
/// be under way.
async fn settled(
    cluster: &Cluster,
    accepted: &[String],
) -> anyhow::Result<(anyhow::Result<()>, Value)> {
    let ids = cluster.scratch().write("accepted", accepted.join("\n"))?;
    let mut last = Value::Null;
    let at_rest = until("the cluster is at rest", AT_REST, async || {
        last = verify(cluster, &["--at-rest", "--accepted", &ids]).await?;
        Ok(last["ok"] == true)
    });
    let at_rest = at_rest.await;
    Ok((at_rest, last))
}

/// What `tasker verify` says.
async fn verify(cluster: &Cluster, more: &[&str]) -> anyhow::Result<Value> {
    verify_at(cluster.tool(), &cluster.state()?.database_url, more).await
}

/// What it says of a database.
pub(super) async fn verify_at(tool: &Tool, url: &str, more: &[&str]) -> anyhow::Result<Value> {
    let mut arguments = vec!["verify", "-o", "json", "--database-url", url];
    arguments.extend(more);
    let ended = tool.run_within(VERIFY_LIMIT, &arguments).await?;
    ensure!(matches!(ended.code, 0 | 6), "{ended:?}");
    ended.json()
}

/// The folder of a cluster's data.
pub(super) fn data_dir(cluster: &Cluster) -> &Path {
    cluster.dev().data_dir()
}
