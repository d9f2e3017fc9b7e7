//! Clients of the API: some go away before they are answered, some ask for what is locked.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use tasker_tests::{Api, Cluster, Rules, Weather, template, until};
use tokio::task::JoinSet;

use super::ledger::count;
use super::trial::{Rounds, Trial, data_dir};

/// Each way, so that every statement takes twice as long.
const DELAY: Duration = Duration::from_millis(250);
/// Requests of one second.
const REQUESTS: u64 = 20;

/// A transaction that waits for the next statement of its owner for so long has none: with the delay
/// they come half a second apart.
const ABANDONED: &str = "select count(*) from pg_stat_activity
    where state like 'idle in transaction%' and now() - state_change > interval '1500 ms'";

/// What Postgres says when a transaction is used after it has failed, and when one was abandoned.
const COMPLAINTS: [&str; 2] =
    ["current transaction is aborted", "due to idle-in-transaction timeout"];

/// One of some requests, whose client does not wait for the answer. Tells whether it went away.
async fn impatient(api: Api, n: u64) -> bool {
    let patience = Duration::from_millis(50 + n * 37 % 1_400);
    let document = json!({"namespace": "chaos-a", "name": "chaos_dag", "context": {"seed": n}});
    let key = format!("impatient-{n}");
    let request = async {
        match n % 4 {
            0 => api.send("GET", "/v1/tasks?limit=20", &[], Vec::new()).await,
            1 => api.send("GET", "/v1/namespaces", &[], Vec::new()).await,
            _ => api.post_task(&document, Some(&key)).await,
        }
    };
    tokio::time::timeout(patience, request).await.is_err()
}

fn complaints(cluster: &Cluster) -> anyhow::Result<usize> {
    let log = fs::read_to_string(data_dir(cluster).join("logs/postgres.log"))?;
    Ok(COMPLAINTS.iter().map(|text| log.matches(text).count()).sum())
}

#[tokio::test]
async fn f17_clients_go_away() -> anyhow::Result<()> {
    let rounds = Rounds { few: 5, all: 120, at_a_time: 60 };
    let Some((mut trial, rounds)) =
        Trial::behind("F17 clients gone", rounds, Rules::default()).await?
    else {
        return Ok(());
    };
    let (api, proxies) = (trial.cluster.api()?, trial.cluster.proxies()?);
    proxies.postgres.set(Weather { whom: "tasker ", delay: DELAY, ..Weather::default() });
    let mut clients = JoinSet::new();
    for second in 0..rounds {
        let next = tokio::time::Instant::now() + Duration::from_secs(1);
        for n in 0..REQUESTS {
            clients.spawn(impatient(api.clone(), second * REQUESTS + n));
        }
        let abandoned = count(&trial.cluster, ABANDONED).await?;
        ensure!(abandoned == 0, "{abandoned} transactions were abandoned");
        tokio::time::sleep_until(next).await;
    }
    let gone = clients.join_all().await.into_iter().filter(|&gone| gone).count();
    trial.cluster.proxies()?.postgres.clear();
    trial.hit(gone as u64);
    let seen = trial.finish().await?;
    let complaints = complaints(&seen.cluster)?;
    ensure!(complaints == 0, "Postgres complains of {complaints} transactions");
    Ok(())
}

/// How long rows are locked.
const LOCKED: Duration = Duration::from_secs(30);
/// Longest answer meanwhile: ten seconds for a connection, two for each of two locks, and a busy machine.
const ANSWERED: Duration = Duration::from_secs(25);
/// Longest answer of who waits for no lock.
const READ: Duration = Duration::from_secs(15);
/// From the end of the lock until work is done again.
const RESUMED: Duration = Duration::from_secs(20);

/// All hot rows that nobody else has at this moment.
const LOCK: &str = "
    select count(*) from (select from tasker.tasks for update skip locked) a;
    select count(*) from (select from tasker.batches for update skip locked) a;
    select count(*) from (select from tasker.namespaces for update skip locked) a;
    select count(*) from (select from tasker.steps for update skip locked) a;
    select pg_sleep(30)";

const SLEEPING: &str = "select count(*) from pg_stat_activity where query like '%pg_sleep%'
    and wait_event = 'PgSleep'";

/// Answers of the API while rows are locked, and how long the slowest one took.
#[derive(Default)]
struct Answers {
    refused: u64,
    slowest: Duration,
}

impl Answers {
    /// Asks for something that must be granted, or refused for now.
    async fn ask(&mut self, api: &Api, method: &str, path: &str) -> anyhow::Result<u16> {
        let begun = Instant::now();
        let limit = if method == "GET" { READ } else { ANSWERED };
        let answer = tokio::time::timeout(limit, api.send(method, path, &[], Vec::new()));
        let answer = answer.await.with_context(|| format!("{method} {path} hangs"))??;
        self.slowest = self.slowest.max(begun.elapsed());
        let is_refused = matches!(answer.status, 429 | 503);
        let is_done = answer.status < 300 || answer.code() == "TASK_ENDED";
        ensure!(is_refused || is_done, "{path}: {} {}", answer.status, answer.text);
        ensure!(!is_refused || answer.retry_after.is_some(), "{answer:?} without Retry-After");
        self.refused += u64::from(is_refused);
        Ok(answer.status)
    }
}

/// A task whose one step sleeps for a minute, and is doing so.
async fn long_task(api: &Api) -> anyhow::Result<String> {
    let id = api.submit("faulty", "sleep", json!({"sleep_ms": 60_000})).await?;
    until("it runs", RESUMED, async || Ok(api.summary(&id).await?["state"] == "in_progress"))
        .await?;
    Ok(id)
}

/// The API answers meanwhile, be it with a refusal, and nothing hangs on afterwards.
#[tokio::test]
async fn f14_hot_rows_are_locked() -> anyhow::Result<()> {
    let rounds = Rounds { few: 0, all: 10, at_a_time: 5 };
    let Some((mut trial, rounds)) = Trial::start("F14 rows locked", rounds).await? else {
        return Ok(());
    };
    let api = trial.cluster.api()?;
    api.register(&template("sleep")?).await?;
    let mut answers = Answers::default();
    for _ in 0..rounds {
        let id = long_task(&api).await?;
        let path = format!("/v1/tasks/{id}");
        let begun = Instant::now();
        let mut lock = trial.cluster.database()?.begin(LOCK)?;
        until("rows are locked", RESUMED, async || Ok(count(&trial.cluster, SLEEPING).await? == 1))
            .await?;
        while begun.elapsed() < LOCKED {
            let reads = answers.ask(&api, "GET", &path).await?;
            ensure!(reads == 200, "a lock keeps nobody from reading: {reads}");
            let status = answers.ask(&api, "DELETE", &path).await?;
            ensure!(status == 503 || begun.elapsed() >= LOCKED, "cancelled in spite of a lock");
        }
        ensure!(lock.wait().await?.success(), "the lock was not held");
        // Unless the last of those above was granted when the lock was gone.
        until("it can be cancelled", RESUMED, async || {
            Ok(answers.ask(&api, "DELETE", &path).await? != 503)
        })
        .await?;
        trial.until_work_goes_on(RESUMED).await?;
    }
    trial.hit(answers.refused);
    trial.note("slowest_answer_ms", answers.slowest.as_millis() as u64);
    trial.finish().await?;
    Ok(())
}
