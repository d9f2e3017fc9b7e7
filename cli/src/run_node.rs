//! `tasker server run` and `tasker worker run`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tasker_messages::{Namespace, Queue};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;
use crate::settings::SettingsArgs;
use crate::worker_drain::WorkerDrainArgs;
use crate::worker_list::WorkerListArgs;
use crate::{nodes, parent};

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Run an orchestrator until SIGINT or SIGTERM
    Run(ServerArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The database; also DATABASE_URL
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// The bus; also NATS_URL
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
    /// Where to listen for the HTTP API
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
    /// Share the address with other orchestrators of this machine
    #[arg(long)]
    reuse_port: bool,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    parent: ParentArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Run a worker until SIGINT or SIGTERM
    Run(WorkerArgs),
    /// List the workers that were heard of within the last hour
    List(WorkerListArgs),
    /// Have a worker finish what it runs and take nothing more
    Drain(WorkerDrainArgs),
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// The bus; also NATS_URL
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
    /// Steps that run at a time
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// A namespace to serve; may be given more than once [default: all]
    #[arg(long, value_name = "NAME")]
    namespace: Vec<Namespace>,
    /// A queue to pull in each namespace; may be given more than once
    #[arg(long, value_name = "NAME")]
    queue: Vec<Queue>,
    /// A folder whose files handlers may read; may be given more than once
    #[arg(long, value_name = "DIR")]
    data_root: Vec<PathBuf>,
    /// The worker's name in logs and results
    #[arg(long, default_value = "worker")]
    name: String,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    parent: ParentArgs,
}

#[derive(Debug, Args)]
struct ParentArgs {
    /// Stop when this is no longer the parent process
    #[arg(long, value_name = "PID", hide = true)]
    parent_pid: Option<i32>,
}

impl ParentArgs {
    fn watch(&self) {
        if let Some(pid) = self.parent_pid {
            parent::leave_with(pid);
        }
    }
}

pub(crate) async fn server(command: ServerCommand) -> anyhow::Result<()> {
    let ServerCommand::Run(args) = command;
    args.parent.watch();
    let settings = args.settings.load([
        ("database.url", args.database_url, "--database-url"),
        ("nats.url", args.nats_url, "--nats-url"),
        ("http.listen", args.http, "--http"),
    ])?;
    tasker_config::init_telemetry(&settings.settings.telemetry)?;
    nodes::run_orchestrator(settings.settings, args.reuse_port).await
}

pub(crate) async fn worker(args: WorkerArgs) -> anyhow::Result<()> {
    args.parent.watch();
    let settings = args.settings.load([
        ("nats.url", args.nats_url, "--nats-url"),
        ("worker.slots", args.slots.map(|n| n.to_string()), "--slots"),
        ("worker.namespaces", list(&args.namespace), "--namespace"),
        ("worker.queues", list(&args.queue), "--queue"),
        ("worker.data_roots", data_roots(&args.data_root)?, "--data-root"),
    ])?;
    tasker_config::init_telemetry(&settings.settings.telemetry)?;
    // Listening begins before the start, so that a signal during it is not lost.
    let stop = stop_signal()?;
    nodes::run_worker(settings.settings, args.name, stop).await
}

/// Names as one setting, whose list has commas between its values.
fn list<T: AsRef<str>>(names: &[T]) -> Option<String> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// Folders as one setting.
pub(crate) fn data_roots(folders: &[PathBuf]) -> Result<Option<String>, Exit> {
    let texts = folders.iter().map(|folder| match folder.to_str() {
        Some(text) if !text.contains(',') => Ok(text),
        _ => {
            let message = "must be UTF-8 without commas";
            Err(Exit::usage(format!("--data-root {}: {message}", folder.display())))
        }
    });
    Ok(list(&texts.collect::<Result<Vec<_>, _>>()?))
}

/// Ends when the process is asked to stop.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_roots_become_one_setting() {
        let check =
            |folders: &[&str]| data_roots(&folders.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(check(&[]), Ok(None));
        assert_eq!(check(&["/a", "b c"]), Ok(Some("/a,b c".to_owned())));
        assert!(check(&["/a,b"]).is_err());
    }
}
