use clap::{Parser, Subcommand};

use crate::batch::BatchCommand;
use crate::bench::BenchCommand;
use crate::bus_users::BusCommand;
use crate::cluster::ClusterArgs;
use crate::completion::CompletionArgs;
use crate::config_show::ConfigCommand;
use crate::dev::DevArgs;
use crate::dlq::DlqCommand;
use crate::doctor::DoctorArgs;
use crate::migrate::MigrateArgs;
use crate::namespace::NamespaceCommand;
use crate::run_node::{ServerCommand, WorkerCommand};
use crate::step::StepCommand;
use crate::task::TaskCommand;
use crate::template::TemplateCommand;
use crate::token::TokenCommand;
use crate::verify::VerifyArgs;

/// Batch workflows over NATS JetStream and Postgres.
#[derive(Debug, Parser)]
#[command(name = "tasker", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failed or the task ended otherwise than complete, 2 usage or a refused request,
3 not authorised, 4 not found, 5 timed out, 6 a check did not pass";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster on this machine: Postgres, nats-server, orchestrators and workers
    Dev(DevArgs),
    /// An orchestrator: HTTP API, dispatch, batches
    #[command(subcommand)]
    Server(ServerCommand),
    /// Workers: run one with the example handlers, list those that run, drain one
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// The bus: users of nats-server
    #[command(subcommand)]
    Bus(BusCommand),
    /// Bring the database to this version's schema
    Migrate(MigrateArgs),
    /// Settings and where each comes from
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Templates: what a task runs
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Tasks: submit, look at, wait for
    #[command(subcommand)]
    Task(TaskCommand),
    /// Steps: look at one, repair what failed
    #[command(subcommand)]
    Step(StepCommand),
    /// Batches: look at one, verify it, repair what failed
    #[command(subcommand)]
    Batch(BatchCommand),
    /// Dead letters: what could not be worked off
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Namespaces: their limits, and how many tasks are open
    #[command(subcommand)]
    Namespace(NamespaceCommand),
    /// Tokens of the HTTP API: make, list and revoke them, on the database itself
    #[command(subcommand)]
    Token(TokenCommand),
    /// Hold the invariants of a cluster against its rows (exit code 6 if one does not hold)
    Verify(VerifyArgs),
    /// Hold rows, bus and workers of a cluster against each other (exit code 6 if something is wrong)
    Doctor(DoctorArgs),
    /// Measure a running cluster
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
