//! The worker of a deployment, with the bundled example handlers. Other handlers are built into a
//! program of their own over this crate's library.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use tasker_config::{Loader, Settings, init_telemetry};
use tasker_worker_node::WorkerNode;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about = "Runs a Tasker worker with the example handlers")]
struct Arguments {
    /// A settings file
    #[arg(long, env = "TASKER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The bus; also NATS_URL
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
    /// Steps that run at a time
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// A namespace to serve; may be given more than once. Default: all
    #[arg(long, value_name = "NAME")]
    namespace: Vec<String>,
    /// A queue to pull in each namespace; may be given more than once
    #[arg(long, value_name = "NAME")]
    queue: Vec<String>,
    /// A folder whose files handlers may read; may be given more than once
    #[arg(long, value_name = "DIR")]
    data_root: Vec<PathBuf>,
    /// The worker's name for people. Default: host and process id
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// How long the thread of a handler that blocks may keep the process.
const STUCK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is where a process says why it ended.
            let _nowhere_else = writeln!(std::io::stderr(), "worker-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = load(&arguments)?;
    init_telemetry(&settings.telemetry)?;
    let name = arguments.name.unwrap_or_else(default_name);
    let runtime = tokio::runtime::Runtime::new().context("the runtime could not start")?;
    let ended = runtime.block_on(run(settings, &name));
    runtime.shutdown_timeout(STUCK);
    ended
}

async fn run(settings: Settings, name: &str) -> anyhow::Result<()> {
    // Listening begins before the start, so that a signal during it is not lost.
    let mut stop = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let exits = settings.worker.exit_when_drained;
    let worker = WorkerNode::start(settings, tasker_examples::example_handlers(), name).await?;
    let ended = tokio::select! {
        error = worker.wait() => Err(error.into()),
        () = worker.drained(), if exits => Ok(()),
        () = any(&mut stop) => Ok(()),
    };
    worker.stop().await;
    ended
}

async fn any([interrupt, terminate]: &mut [Signal; 2]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn load(arguments: &Arguments) -> anyhow::Result<Settings> {
    let mut loader = Loader::new()?;
    if let Some(path) = &arguments.config {
        loader = loader.file(path)?;
    }
    loader = loader.environment(tasker_config::process_environment())?;
    let list = |values: &[String]| (!values.is_empty()).then(|| values.join(","));
    let flags = [
        ("nats.url", "--nats-url", arguments.nats_url.clone()),
        ("worker.slots", "--slots", arguments.slots.map(|n| n.to_string())),
        ("worker.namespaces", "--namespace", list(&arguments.namespace)),
        ("worker.queues", "--queue", list(&arguments.queue)),
        ("worker.data_roots", "--data-root", list(&folders(&arguments.data_root)?)),
    ];
    for (key, flag, value) in flags {
        if let Some(value) = value {
            loader = loader.flag(key, &value, flag)?;
        }
    }
    Ok(loader.load()?.settings)
}

/// Folders as texts; a list of settings has commas between its values.
fn folders(folders: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let texts = folders.iter().map(|folder| {
        let text = folder.to_str().filter(|text| !text.contains(','));
        ensure!(text.is_some(), "--data-root {}: must be UTF-8 without commas", folder.display());
        Ok(text.unwrap_or_default().to_owned())
    });
    texts.collect()
}

fn default_name() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "worker" } else { host.trim() };
    format!("{host}-{}", std::process::id())
}
