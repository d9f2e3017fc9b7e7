//! `tasker doctor`, and what the reconciler mends and writes down.

use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tasker_tests::{Api, Cluster, Process, until};

const SOON: Duration = Duration::from_secs(60);

/// What `tasker doctor` says, and whether it is content.
async fn doctor(cluster: &Cluster) -> anyhow::Result<(bool, Value)> {
    let state = cluster.state()?;
    let servers = ["--database-url", &state.database_url, "--nats-url", &state.nats_url];
    let arguments = [&["doctor", "-o", "json"], servers.as_slice()].concat();
    let ended = cluster.tool().run(&arguments).await?;
    ensure!(matches!(ended.code, 0 | 6), "{ended:?}");
    Ok((ended.code == 0, ended.json()?))
}

/// How the things are that were looked at.
fn conditions(found: &Value) -> Vec<(String, String)> {
    let findings = found["findings"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    findings.map(|finding| (text(&finding["id"]), text(&finding["condition"]))).collect()
}

/// The kinds of what was mended.
pub(crate) async fn mended(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let (_, found) = doctor(cluster).await?;
    let all = found["recoveries"].as_array().into_iter().flatten();
    Ok(all.filter_map(|recovery| recovery["kind"].as_str()).map(str::to_owned).collect())
}

/// A task that runs, and goes on for some seconds.
/// Its steps are not so quick that a worker would fetch all that is on the bus.
async fn long_task(api: &Api) -> anyhow::Result<String> {
    let id = api.submit("bench", "fan_out", json!({"n": 20_000, "sleep_ms": 10})).await?;
    until("it runs", SOON, async || {
        let summary = api.summary(&id).await?;
        Ok(summary["batches"][0]["published"].as_u64() > Some(500))
    })
    .await?;
    Ok(id)
}

/// A healthy cluster is called so; one without orchestrators is not, and what stands still is named.
#[tokio::test]
async fn a_cluster_is_looked_at() -> anyhow::Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    let api = cluster.api()?;
    let task = api.run("bench", "fan_out", json!({"n": 300}), SOON).await?;
    ensure!(task.state() == "complete", "{}", task.view);
    // The worker is heard of with its next heartbeat, and what has ended leaves the bus in a moment.
    let looked_at = ["database", "workers", "streams", "queues", "consumers", "served"];
    until("all is well", SOON, async || {
        let (ok, found) = doctor(&cluster).await?;
        ensure!(ok && found["recoveries"] == json!([]), "{found:#}");
        Ok(conditions(&found) == looked_at.map(|id| (id.to_owned(), "ok".to_owned())))
    })
    .await?;

    // Nobody publishes what is accepted when the orchestrator is frozen, nor makes what is deleted.
    let id = long_task(&api).await?;
    let orchestrator = Process::running(cluster.state()?.pids.orchestrators[0])?;
    orchestrator.signal(Signal::SIGSTOP)?;
    let wrong = until("the doctor sees it", SOON, async || {
        let (ok, found) = doctor(&cluster).await?;
        let wrong = ("publishing".to_owned(), "wrong".to_owned());
        Ok(!ok && conditions(&found).contains(&wrong))
    });
    let wrong = wrong.await;
    orchestrator.signal(Signal::SIGCONT)?;
    wrong?;
    let task = api.wait(&id, SOON).await?;
    ensure!(task.state() == "complete", "{}", task.view);
    until("it is well again", SOON, async || Ok(doctor(&cluster).await?.0)).await
}

/// A worker that stands still looks like a consumer that does: it has room, and nothing is delivered.
#[tokio::test]
async fn a_consumer_that_stands_still_is_made_anew() -> anyhow::Result<()> {
    let settings = "[reconciler]\ninterval_ms = 500\nstalled_consumer_ms = 2000\n";
    let cluster = Cluster::with_settings(1, 1, settings).await?;
    let api = cluster.api()?;
    // So that the worker pulls the queue, and its row says that it has room.
    api.run("bench", "fan_out", json!({"n": 10}), SOON).await?;
    let rows = cluster.database()?;
    until("its heartbeat is recorded", SOON, async || {
        let row = rows.row("select count(*) as n from tasker.workers where namespace = 'bench'");
        Ok(row.await?["n"] == 1)
    })
    .await?;
    let id = long_task(&api).await?;
    let worker = Process::running(cluster.state()?.pids.workers[0])?;
    worker.signal(Signal::SIGSTOP)?;
    // As if it had said so a moment ago.
    let has_room = "update tasker.workers set last_beat_at = now(), queues =
        (select json_agg(jsonb_set(q::jsonb, '{busy}', '0')) from json_array_elements(queues) q)";
    rows.run(has_room).await?;
    let seen = until("it is made anew", SOON, async || {
        Ok(mended(&cluster).await?.contains(&"stalled_consumer".to_owned()))
    })
    .await;
    worker.signal(Signal::SIGCONT)?;
    seen?;
    let task = api.wait(&id, SOON).await?;
    ensure!(task.state() == "complete", "{}", task.view);
    Ok(())
}
