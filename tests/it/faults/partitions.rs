//! Faults of the network, by proxies between the nodes and their servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tasker_tests::{Proxy, Rule, Rules, Verdict, Way, Weather};

use super::trial::{Rounds, Trial};

/// After a partition everything goes on within this time.
const RESUMED: Duration = Duration::from_secs(20);

/// How many partitions there are of each link.
const PARTITIONS: u64 = 12;

/// What is held up, for how long, and whether the connections are reset when it is over.
fn partition(round: u64, whom: &'static str) -> (Weather, Duration, bool) {
    // Nobody hears anybody, the servers hear nobody, the nodes hear nobody.
    let (hold_up, hold_down) = [(true, true), (true, false), (false, true)][(round % 3) as usize];
    let is_reset = round / 3 % 2 == 1;
    let time = if (round / 6).is_multiple_of(2) { 5 } else { 30 };
    let weather = Weather { whom, hold_up, hold_down, ..Weather::default() };
    (weather, Duration::from_secs(time), is_reset)
}

/// Partitions of the clients of one proxy whose names begin as one of `whom`, each in turn.
async fn part(
    name: &'static str,
    rounds: Rounds,
    whom: &[&'static str],
    link: fn(&Trial) -> anyhow::Result<&Proxy>,
) -> anyhow::Result<()> {
    let Some((mut trial, rounds)) = Trial::behind(name, rounds, Rules::default()).await? else {
        return Ok(());
    };
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let whom = whom[(round / PARTITIONS) as usize % whom.len()];
        let (weather, time, is_reset) = partition(round, whom);
        let proxy = link(&trial)?;
        proxy.set(weather);
        tokio::time::sleep(time).await;
        let parted = if is_reset { proxy.cut(whom) } else { proxy.count(whom) };
        proxy.clear();
        let healed = std::time::Instant::now();
        trial
            .until_work_goes_on(RESUMED)
            .await
            .with_context(|| format!("round {round}: {weather:?}"))?;
        slowest = slowest.max(healed.elapsed());
        trial.hit(parted.min(1));
    }
    trial.note("slowest_resumption_ms", slowest.as_millis() as u64);
    trial.finish().await?;
    Ok(())
}

fn nats(trial: &Trial) -> anyhow::Result<&Proxy> {
    Ok(&trial.cluster.proxies()?.nats)
}

fn postgres(trial: &Trial) -> anyhow::Result<&Proxy> {
    Ok(&trial.cluster.proxies()?.postgres)
}

#[tokio::test]
async fn f7_workers_and_bus_are_parted() -> anyhow::Result<()> {
    let rounds = Rounds { few: 0, all: 2 * PARTITIONS, at_a_time: 2 * PARTITIONS };
    part("F7 workers and bus parted", rounds, &["worker", "worker-1"], nats).await
}

#[tokio::test]
async fn f7_orchestrators_and_bus_are_parted() -> anyhow::Result<()> {
    let rounds = Rounds { few: 0, all: PARTITIONS, at_a_time: PARTITIONS };
    part("F7 orchestrators and bus parted", rounds, &["tasker-orchestrator"], nats).await
}

#[tokio::test]
async fn f7_orchestrators_and_postgres_are_parted() -> anyhow::Result<()> {
    let rounds = Rounds { few: 0, all: PARTITIONS, at_a_time: PARTITIONS };
    part("F7 orchestrators and Postgres parted", rounds, &["tasker "], postgres).await
}

/// How long requests for work are swallowed: longer than they are good for.
const STALLED: Duration = Duration::from_secs(60);

/// What a client says to ask a durable consumer for messages.
const PULLS: [&[u8]; 2] = [b"PUB $JS.API.CONSUMER.MSG.NEXT.", b"HPUB $JS.API.CONSUMER.MSG.NEXT."];

/// To the workers it looks like a consumer that has nothing for them: the bus is there, it answers
/// everything else, and nothing comes.
#[tokio::test]
async fn f11_requests_for_work_are_swallowed() -> anyhow::Result<()> {
    let rounds = Rounds { few: 0, all: 10, at_a_time: 5 };
    let is_on = Arc::new(AtomicBool::new(false));
    let swallowed = Arc::new(AtomicU64::new(0));
    let nats = swallow_pulls(&is_on, &swallowed);
    let rules = Rules { nats, ..Rules::default() };
    let Some((mut trial, rounds)) = Trial::behind("F11 consumer stalled", rounds, rules).await?
    else {
        return Ok(());
    };
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds {
        is_on.store(true, Ordering::Relaxed);
        // Requests that were sent before are good for half a minute.
        tokio::time::sleep(STALLED - IDLE).await;
        let before = trial.ended();
        tokio::time::sleep(IDLE).await;
        ensure!(trial.ended() == before, "work was done in spite of it");
        is_on.store(false, Ordering::Relaxed);
        let healed = std::time::Instant::now();
        trial.until_work_goes_on(RESUMED).await?;
        slowest = slowest.max(healed.elapsed());
    }
    trial.hit(swallowed.load(Ordering::Relaxed));
    trial.note("slowest_resumption_ms", slowest.as_millis() as u64);
    trial.finish().await?;
    Ok(())
}

/// At the end of a stall nothing at all is done any more.
const IDLE: Duration = Duration::from_secs(20);

fn swallow_pulls(is_on: &Arc<AtomicBool>, swallowed: &Arc<AtomicU64>) -> Rule {
    let (is_on, swallowed) = (Arc::clone(is_on), Arc::clone(swallowed));
    Arc::new(move || {
        let (is_on, swallowed) = (Arc::clone(&is_on), Arc::clone(&swallowed));
        Box::new(move |name, way, message| {
            let is_pull = way == Way::Up && PULLS.iter().any(|pull| message.starts_with(pull));
            if !(is_pull && name.starts_with("worker") && is_on.load(Ordering::Relaxed)) {
                return Verdict::Pass;
            }
            swallowed.fetch_add(1, Ordering::Relaxed);
            Verdict::Drop
        })
    })
}
