//! The orchestrator of a deployment. `orchestrator-node health` asks a running one on this machine.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use tasker_config::{Loader, Settings, init_telemetry};
use tasker_orchestrator_node::{Options, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about = "Runs a Tasker orchestrator")]
struct Arguments {
    /// A settings file
    #[arg(long, env = "TASKER_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Ask the orchestrator on this machine whether it is ready
    Health,
}

/// How long a thread that does not come back may keep the process.
const STUCK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is where a process says why it ended.
            let _nowhere_else = writeln!(std::io::stderr(), "orchestrator-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = load(&arguments)?;
    if let Some(Command::Health) = arguments.command {
        return health(&settings.http.listen);
    }
    init_telemetry(&settings.telemetry)?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime could not start")?;
    let ended = runtime.block_on(run(settings, Options::default()));
    runtime.shutdown_timeout(STUCK);
    Ok(ended?)
}

fn load(arguments: &Arguments) -> anyhow::Result<Settings> {
    let mut loader = Loader::new()?;
    if let Some(path) = &arguments.config {
        loader = loader.file(path)?;
    }
    Ok(loader.environment(tasker_config::process_environment())?.load()?.settings)
}

/// One plain HTTP request: a health check needs no client library.
fn health(listen: &str) -> anyhow::Result<()> {
    let mut stream =
        TcpStream::connect(listen).with_context(|| format!("no answer on {listen}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        bail!("not ready: {status}");
    }
    Ok(())
}
