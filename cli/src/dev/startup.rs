use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tasker_config::Auth;
use tasker_messages::code;
use tokio::time::{Instant, sleep};

use super::board::{Board, Slot, Urls};
use super::child::LOG_MARK;
use super::data_dir::DataDir;
use super::fleet::Fleet;
use super::nats::{Nats, Users};
use super::plan::Plan;
use super::postgres::Postgres;
use super::state_file::DevState;
use super::supervisor::Supervisor;
use crate::client::Client;
use crate::nodes;
use crate::output;

/// Postgres may have gigabytes of its log to replay.
const LONGEST_START: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
/// A child that ends this often before it is ready will not become it.
const MAX_DEATHS: u32 = 3;
const SHOWN_LOG_LINES: usize = 15;

/// Starts everything and returns when tasks can be submitted.
pub(super) async fn start(
    plan: &Plan,
    data: &DataDir,
    supervisor: &mut Supervisor,
) -> anyhow::Result<DevState> {
    let database = match &plan.database_url {
        Some(url) => url.clone(),
        None => start_postgres(plan, data, supervisor).await?,
    };
    let bus = match &plan.nats_url {
        Some(url) => PrivateBus { url: url.clone(), counters: None, users: None },
        None => start_nats(plan, data, supervisor).await?,
    };
    let PrivateBus { url: nats, counters: nats_counters, users } = bus;
    // A private database has no other nodes than those that are started now.
    nodes::migrate(&plan.database(&database), plan.database_url.is_none()).await?;
    let fleet = Fleet::new(plan, data, &database, &nats, users)?;
    for n in 1..=plan.orchestrators {
        supervisor.start(fleet.orchestrator(n));
    }
    let http = format!("http://{}", plan.http.address);
    wait_for_orchestrator(&http, data, supervisor.board()).await?;
    for n in 1..=plan.workers {
        supervisor.start(fleet.worker(n));
    }
    match plan.auth {
        Auth::None => register_examples(&http).await?,
        Auth::Tokens => output::note(
            &"api.auth is `tokens`: make one with `tasker token create`; the examples are not registered",
        ),
    }
    Ok(supervisor.board().open(Urls { http, database, nats, nats_counters }))
}

async fn start_postgres(
    plan: &Plan,
    data: &DataDir,
    supervisor: &mut Supervisor,
) -> anyhow::Result<String> {
    let postgres = Postgres::prepare(data, plan.ephemeral, plan.counted).await?;
    supervisor.start(postgres.program());
    let board = supervisor.board();
    let ready = async || board.pid(Slot::Postgres).is_some_and(|pid| postgres.is_ready(pid));
    wait_until(ready, Slot::Postgres, data, board).await?;
    Ok(postgres.url())
}

/// Where the bus is, and who may use it.
struct PrivateBus {
    url: String,
    counters: Option<String>,
    users: Option<Users>,
}

async fn start_nats(
    plan: &Plan,
    data: &DataDir,
    supervisor: &mut Supervisor,
) -> anyhow::Result<PrivateBus> {
    let nats = Nats::prepare(data, plan.nats_users, plan.counted).await?;
    supervisor.start(nats.program());
    wait_until(async || nats.is_ready().await, Slot::Nats, data, supervisor.board()).await?;
    let (url, counters) = (nats.url(), nats.counters());
    Ok(PrivateBus { url, counters, users: nats.users().cloned() })
}

async fn wait_for_orchestrator(http: &str, data: &DataDir, board: &Board) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
    let url = format!("{http}/ready");
    let ready = async || {
        let answer = client.get(&url).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    };
    wait_until(ready, Slot::Orchestrator(1), data, board).await
}

/// Looks until something is ready; gives up when its process keeps ending, and shows its log.
async fn wait_until(
    mut ready: impl AsyncFnMut() -> bool,
    slot: Slot,
    data: &DataDir,
    board: &Board,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + LONGEST_START;
    while !ready().await {
        let log = data.log(&slot.to_string());
        if board.deaths(slot) >= MAX_DEATHS {
            bail!("{slot} does not start; the end of {}:\n{}", log.display(), tail(&log));
        }
        if Instant::now() >= deadline {
            let seconds = LONGEST_START.as_secs();
            bail!("{slot} is not ready after {seconds} s; see {}", log.display());
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// The end of what a child said since its last start.
fn tail(log: &Path) -> String {
    let Ok(text) = std::fs::read(log) else { return String::new() };
    let text = String::from_utf8_lossy(&text);
    let last = text.rsplit(LOG_MARK).next().unwrap_or_default();
    let lines: Vec<_> = last.lines().skip(1).collect();
    lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..].join("\n")
}

/// An example that was changed since an earlier run on the same data is no reason not to start.
async fn register_examples(http: &str) -> anyhow::Result<()> {
    let client = Client::new(http, None)?;
    for (name, yaml) in nodes::example_templates() {
        match client.register(yaml.as_bytes().to_vec()).await {
            Ok(_) => {}
            Err(error) if error.is(code::TEMPLATE_CONFLICT) => {
                output::note(&format_args!("the stored template {name} is kept: {error}"));
            }
            Err(error) => return Err(error).context(format!("registering the example {name}")),
        }
    }
    Ok(())
}
