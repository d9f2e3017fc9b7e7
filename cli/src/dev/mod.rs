//! `tasker dev`: a whole cluster on this machine, as supervised child processes.
//!
//! Order of life: lock the data folder, stop what a killed `dev` left there, start Postgres and
//! nats-server, migrate, start orchestrators, start workers, register the example templates, say
//! that it is ready. The way back is the same in reverse.

mod account;
mod binaries;
mod board;
mod child;
mod data_dir;
mod fleet;
mod leftover;
mod nats;
mod plan;
mod ports;
mod postgres;
mod startup;
mod state_file;
mod stop_signal;
mod supervisor;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::output::{self, Format, OutputArgs};

use data_dir::DataDir;
use plan::Plan;
pub(crate) use state_file::{DevState, Pids, StateError};
use stop_signal::StopSignal;
use supervisor::Supervisor;

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Orchestrator processes; they share one HTTP address
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=32))]
    orchestrators: u16,
    /// Worker processes with the example handlers
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(0..=64))]
    workers: u16,
    /// Steps that each worker runs at a time [default: the setting worker.slots]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    slots: Option<u32>,
    /// Where to serve the HTTP API, on loopback [default: a free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddr>,
    /// A folder whose files handlers may read; may be given more than once [default: .]
    #[arg(long, value_name = "DIR")]
    data_root: Vec<PathBuf>,
    /// A TOML file of settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use this database instead of a private Postgres
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Use this bus instead of a private nats-server
    #[arg(long, value_name = "URL", env = "NATS_URL", hide_env_values = true)]
    nats_url: Option<String>,
    /// Give the private nats-server the users of a deployment: nodes may do there what they need and
    /// nothing else
    #[arg(long, conflicts_with = "nats_url")]
    nats_users: bool,
    /// Let the private servers count what they are asked for, for `tasker bench`: statements of SQL, and
    /// messages, which nats-server tells whoever asks on a port of its own on loopback
    #[arg(long)]
    counted: bool,
    /// For tests: a data folder that is removed at the end, which comes when standard input closes
    #[arg(long, hide = true)]
    ephemeral: bool,
    /// For tests that kill again and again: the longest time before what died is started again
    #[arg(long, value_name = "MS", hide = true)]
    restart_ms: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: DevArgs, data_dir: &Path) -> anyhow::Result<()> {
    // From here on a signal is remembered, also in the middle of the start.
    let mut stop = StopSignal::listen(args.ephemeral)?;
    let format = args.output.format;
    let data = if args.ephemeral { DataDir::ephemeral()? } else { DataDir::open(data_dir)? };
    let result = run_in(args, &data, &mut stop, format).await;
    data.close();
    result
}

async fn run_in(
    args: DevArgs,
    data: &DataDir,
    stop: &mut StopSignal,
    format: Format,
) -> anyhow::Result<()> {
    DevState::remove(data.path())?;
    let plan = Plan::new(args)?;
    let mut supervisor = Supervisor::new(data, plan.longest_backoff);
    let result = tokio::select! {
        biased;
        () = stop.next() => Ok(()),
        started = startup::start(&plan, data, &mut supervisor) => match started {
            Ok(state) => {
                say_ready(&plan, data, &state, format);
                stop.next().await;
                Ok(())
            }
            Err(error) => Err(error),
        },
    };
    // The file goes first: from now on nobody shall begin to use this cluster.
    supervisor.board().close();
    supervisor.stop_all().await;
    result
}

/// The one line that says that the cluster can be used.
fn say_ready(plan: &Plan, data: &DataDir, state: &DevState, format: Format) {
    let count = |n: u16, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let text = match format {
        Format::Table => format!(
            "tasker is ready at {} with {} and {}; data, logs and pids (dev.json) are in {}; \
             Ctrl-C stops it",
            state.url,
            count(plan.orchestrators, "orchestrator"),
            count(plan.workers, "worker"),
            data.path().display(),
        ),
        Format::Json => json!({"url": state.url, "data_dir": data.path()}).to_string(),
        Format::Ids => state.url.clone(),
    };
    // A cluster does not end because nobody reads its first words.
    let _unread = output::print(&text);
}
