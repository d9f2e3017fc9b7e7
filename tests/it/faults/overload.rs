//! More work than the cluster can do.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tasker_tests::{Api, Cluster, Process, template, until};
use tokio::task::JoinSet;

use super::ledger::count;
use super::trial::{Rounds, Trial};

/// Clients that submit as fast as they are answered, and go on at once when they are refused.
const CLIENTS: u64 = 64;
/// Tasks that may be open in their namespace. Without a limit what is accepted waits in Postgres, which
/// has room for all of it, and nobody is ever refused.
const MOST_OPEN: u64 = 1_000;
/// For what was accepted to end: seven steps each, at the pace of two busy cores.
const DRAINED: Duration = Duration::from_secs(120);
/// The most memory that a node may ever have had: the backlog waits in Postgres.
const MOST_MIB: f64 = 512.0;

/// What the answers came to.
#[derive(Default)]
struct Answers {
    accepted: u64,
    refused: u64,
}

/// One client. Every answer accepts, or refuses and says when to come again.
async fn client(api: Api, who: u64, until: Instant) -> anyhow::Result<Answers> {
    let mut answers = Answers::default();
    while Instant::now() < until {
        let seed = who * 1_000_000 + answers.accepted;
        let document =
            json!({"namespace": "chaos-c", "name": "chaos_dag", "context": {"seed": seed}});
        let answer = api.post_task(&document, Some(&format!("crowd-{seed}"))).await?;
        match answer.status {
            200 | 201 => answers.accepted += 1,
            429 | 503 => {
                ensure!(answer.retry_after.is_some(), "no Retry-After: {answer:?}");
                answers.refused += 1;
            }
            _ => anyhow::bail!("{} {}", answer.status, answer.text),
        }
    }
    Ok(answers)
}

/// The most memory that a node of ours ever had.
fn peak_mib(cluster: &Cluster) -> anyhow::Result<f64> {
    let pids = cluster.state()?.pids;
    let peaks = pids.nodes().map(|pid| Process::running(pid)?.peak_rss_mib());
    let peaks = peaks.collect::<anyhow::Result<Vec<f64>>>()?;
    peaks.into_iter().reduce(f64::max).context("a node")
}

const OPEN: &str = "select count(*) from tasker.tasks
    where namespace = 'chaos-c' and finished_at is null";

#[tokio::test]
async fn f23_more_is_submitted_than_can_be_done() -> anyhow::Result<()> {
    // A round is a second.
    let rounds = Rounds { few: 0, all: 600, at_a_time: 120 };
    let Some((mut trial, rounds)) = Trial::start("F23 overload", rounds).await? else {
        return Ok(());
    };
    let api = trial.cluster.api()?;
    api.register(&template("chaos_dag")?.replace("NAMESPACE", "chaos-c")).await?;
    let limit: Value = json!({"max_open_tasks": MOST_OPEN, "reason": "a test"});
    let headers = [("content-type", b"application/json".as_slice())];
    let path = "/v1/namespaces/chaos-c";
    let answer = api.send("PUT", path, &headers, limit.to_string().into_bytes()).await?;
    ensure!(answer.status == 200, "{}", answer.text);
    let mut clients = JoinSet::new();
    let end = Instant::now() + Duration::from_secs(rounds);
    for who in 0..CLIENTS {
        clients.spawn(client(api.clone(), who, end));
    }
    let mut all = Answers::default();
    while let Some(answers) = clients.join_next().await {
        let answers = answers??;
        all.accepted += answers.accepted;
        all.refused += answers.refused;
    }
    let over = Instant::now();
    until("what was accepted ends", DRAINED, async || Ok(count(&trial.cluster, OPEN).await? == 0))
        .await?;
    let (peak, drained) = (peak_mib(&trial.cluster)?, over.elapsed());
    trial.hit(all.refused);
    trial.note("accepted", all.accepted);
    trial.note("drained_ms", drained.as_millis() as u64);
    trial.note("peak_mib", peak as u64);
    trial.finish().await?;
    ensure!(all.accepted > MOST_OPEN, "only {} were accepted", all.accepted);
    ensure!(peak < MOST_MIB, "a node had {peak} MiB");
    Ok(())
}
