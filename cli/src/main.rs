//! `tasker`: a cluster on one machine, its nodes, and a client of the HTTP API.
//!
//! One file per command; what commands print goes through `output`, what they ask the cluster
//! through `client`, and how they end is in `exit`.

mod args;
mod batch;
mod bench;
mod bus_users;
mod client;
mod cluster;
mod completion;
mod config_show;
mod dev;
mod dlq;
mod doctor;
mod exit;
mod migrate;
mod namespace;
mod nodes;
mod output;
mod parent;
mod repair;
mod run_node;
mod servers;
mod settings;
mod step;
mod table;
mod task;
mod template;
mod template_ref;
mod token;
mod verify;
mod worker_drain;
mod worker_list;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use args::{Cli, Command};
use run_node::WorkerCommand;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a thread that does not come back, of a handler that blocks, may keep a process that has ended.
const STUCK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

/// Nodes and benchmarks use all cores. Everything else is one thread that mostly waits; `dev` also
/// needs the thread that starts its children to live as long as itself (see `dev::child`).
fn start(cli: Cli) -> anyhow::Result<()> {
    let node = matches!(
        cli.command,
        Command::Server(_) | Command::Worker(WorkerCommand::Run(_)) | Command::Bench(_)
    );
    let mut builder = if node {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build()?;
    let ended = runtime.block_on(dispatch(cli));
    runtime.shutdown_timeout(STUCK);
    ended
}

async fn dispatch(Cli { cluster, command }: Cli) -> anyhow::Result<()> {
    match command {
        Command::Dev(args) => dev::run(args, &cluster.data_dir).await,
        Command::Server(command) => run_node::server(command).await,
        Command::Worker(WorkerCommand::List(args)) => worker_list::run(args, &cluster).await,
        Command::Worker(WorkerCommand::Drain(args)) => worker_drain::run(args, &cluster).await,
        Command::Worker(WorkerCommand::Run(args)) => run_node::worker(args).await,
        Command::Bus(command) => bus_users::run(command),
        Command::Migrate(args) => migrate::run(args).await,
        Command::Config(command) => config_show::run(command),
        Command::Template(command) => template::run(command, &cluster).await,
        Command::Task(command) => task::run(command, &cluster).await,
        Command::Step(command) => step::run(command, &cluster).await,
        Command::Batch(command) => batch::run(command, &cluster).await,
        Command::Dlq(command) => dlq::run(command, &cluster).await,
        Command::Namespace(command) => namespace::run(command, &cluster).await,
        Command::Doctor(args) => doctor::run(args, &cluster).await,
        Command::Token(command) => token::run(command, &cluster).await,
        Command::Verify(args) => verify::run(args, &cluster).await,
        Command::Bench(command) => bench::run(command, &cluster.data_dir).await,
        Command::Completion(args) => completion::run(args),
    }
}
