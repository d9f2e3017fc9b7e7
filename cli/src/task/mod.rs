//! `tasker task …`.

pub(crate) mod context;
mod list;
mod progress;
mod show;
mod steps;
mod submit;
mod wait;
mod watch;
mod why;

use std::time::Duration;

use clap::Subcommand;
use tasker_messages::TaskId;
use tokio::time::Instant;

use crate::client::{Client, Document};
use crate::cluster::ClusterArgs;
use crate::output::{self, Format, OutputArgs};
use crate::repair::{self, Repair};

use list::ListArgs;
use steps::StepsArgs;
use submit::SubmitArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Run a template
    Submit(SubmitArgs),
    /// Print a task with its steps
    Get {
        id: TaskId,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List tasks, newest first
    List(ListArgs),
    /// List the steps of a task, members of batches included
    Steps(StepsArgs),
    /// Say why a task is where it is: what waits for what, what failed, who could run it
    Why {
        id: TaskId,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Wait until a task has ended and print it
    Wait {
        id: TaskId,
        #[command(flatten)]
        limit: TimeLimit,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show the progress of a task until it has ended, then print it
    Watch {
        id: TaskId,
        #[command(flatten)]
        limit: TimeLimit,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Run what failed of a task again
    Retry {
        id: TaskId,
        #[command(flatten)]
        repair: Repair,
    },
    /// Stop a task
    Cancel {
        id: TaskId,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct TimeLimit {
    /// Give up waiting after this time (exit code 5); the task goes on
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
}

impl TimeLimit {
    fn deadline(self) -> Option<Instant> {
        self.timeout.and_then(|timeout| Instant::now().checked_add(timeout))
    }
}

/// Fractions are allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

pub(crate) async fn run(command: TaskCommand, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let client = cluster.client()?;
    match command {
        TaskCommand::Submit(args) => submit::run(args, &client).await,
        TaskCommand::Get { id, output } => {
            let task = client.task(id, None).await?;
            Ok(output::print(&show::task(task, output.format))?)
        }
        TaskCommand::List(args) => list::run(args, &client).await,
        TaskCommand::Steps(args) => steps::run(args, &client).await,
        TaskCommand::Why { id, output } => why::run(&client, id, output.format).await,
        TaskCommand::Wait { id, limit, output } => {
            let task = wait::until_ended(&client, id, limit.deadline()).await?;
            wait::conclude(task, output.format)
        }
        TaskCommand::Watch { id, limit, output } => {
            let task = watch::until_ended(&client, id, limit.deadline()).await?;
            wait::conclude(task, output.format)
        }
        TaskCommand::Retry { id, repair } => repair::retry(id, None, repair, cluster).await,
        TaskCommand::Cancel { id, output } => cancel(&client, id, output.format).await,
    }
}

async fn cancel(client: &Client, id: TaskId, format: Format) -> anyhow::Result<()> {
    let Document { text, value } = client.cancel(id).await?;
    let text = match format {
        Format::Table => format!("{}  {}", value.id, value.state),
        Format::Json => text,
        Format::Ids => value.id.to_string(),
    };
    Ok(output::print(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "x", "-1", "1e300", "NaN"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
