//! `tasker step …` and `tasker batch …`, and `tasker task retry`: repair by hand.

use clap::{Args, Subcommand};
use serde_json::Value;
use tasker_messages::{BatchId, RepairStep, Repaired, Retry, StepAction, TaskId};

use crate::client::Document;
use crate::cluster::ClusterArgs;
use crate::output::{self, Format, OutputArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum StepCommand {
    /// Run a failed step again, with a new retry budget, from its last checkpoint
    Reset(StepArgs),
    /// Count a failed step as done, without a result
    Resolve(StepArgs),
    /// Give a failed step a result
    Complete {
        /// The result as JSON
        #[arg(long, value_name = "JSON", value_parser = json)]
        result: Value,
        #[command(flatten)]
        step: StepArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BatchCommand {
    /// Run the failed members of a batch again; of a stopped one, the cancelled members too
    Retry {
        task: TaskId,
        batch: BatchId,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    task: TaskId,
    /// The step's id or name
    step: String,
    #[command(flatten)]
    why: Why,
}

/// What the audit trail keeps.
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// Why; kept in the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who asks; kept in the audit trail
    #[arg(long, value_name = "NAME", env = "USER")]
    by: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))
}

pub(crate) async fn step(command: StepCommand, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let (args, action, result) = match command {
        StepCommand::Reset(args) => (args, StepAction::ResetForRetry, None),
        StepCommand::Resolve(args) => (args, StepAction::ResolveManually, None),
        StepCommand::Complete { result, step } => {
            (step, StepAction::CompleteManually, Some(result))
        }
    };
    let StepArgs { task, step, why } = args;
    let request = RepairStep { action, reason: why.reason, by: why.by, result };
    let repaired = cluster.client()?.repair_step(task, &step, &request).await?;
    print(repaired, why.output.format)
}

pub(crate) async fn batch(command: BatchCommand, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let BatchCommand::Retry { task, batch, why } = command;
    retry(task, Some(batch), why, cluster).await
}

/// Retries a task, or one of its batches.
pub(crate) async fn retry(
    task: TaskId,
    batch: Option<BatchId>,
    why: Why,
    cluster: &ClusterArgs,
) -> anyhow::Result<()> {
    let request = Retry { reason: why.reason, by: why.by };
    let repaired = cluster.client()?.retry(task, batch, &request).await?;
    print(repaired, why.output.format)
}

fn print(repaired: Document<Repaired>, format: Format) -> anyhow::Result<()> {
    let Document { text, value } = repaired;
    let text = match format {
        Format::Json => text,
        Format::Ids => value.steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        Format::Table => table(&value),
    };
    Ok(output::print(&text)?)
}

fn table(repaired: &Repaired) -> String {
    let steps = repaired.steps.iter().map(|step| format!("step   {step}"));
    let batches = repaired
        .batches
        .iter()
        .map(|batch| format!("batch  {}  {} members", batch.id, batch.members));
    let lines: Vec<String> = std::iter::once(format!("task   {} runs again", repaired.id))
        .chain(steps)
        .chain(batches)
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use tasker_messages::RepairedBatch;

    use super::*;

    #[test]
    fn what_was_repaired() {
        let id = |n| format!("0190a0a0-0000-7000-8000-00000000000{n}");
        let repaired = Repaired {
            id: id(1).parse().expect("an id"),
            steps: vec![id(2).parse().expect("an id")],
            batches: vec![RepairedBatch { id: id(3).parse().expect("an id"), members: 7 }],
        };
        let expect =
            format!("task   {} runs again\nstep   {}\nbatch  {}  7 members", id(1), id(2), id(3));
        assert_eq!(table(&repaired), expect);
        assert!(json("{").is_err());
    }
}
