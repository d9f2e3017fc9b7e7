//! What repairs by hand have in common.

use clap::Args;
use tasker_messages::{BatchId, RepairStep, Repaired, Retry, TaskId};

use crate::client::Document;
use crate::cluster::ClusterArgs;
use crate::output::{self, Format, OutputArgs};

/// What the audit trail keeps.
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// Why; kept in the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Who asks; kept in the audit trail
    #[arg(long, value_name = "NAME", env = "USER")]
    pub(crate) by: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Why, and how far.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// Take back convergences that have run with the failure, and all behind them; they run again
    #[arg(long)]
    pub(crate) cascade: bool,
    #[command(flatten)]
    pub(crate) why: Why,
}

impl Repair {
    /// The body of a request, and how to print its answer.
    pub(crate) fn request(self) -> (Retry, Format) {
        let Why { reason, by, output } = self.why;
        (Retry { reason, by, cascade: self.cascade }, output.format)
    }
}

/// Retries a task, or one of its batches.
pub(crate) async fn retry(
    task: TaskId,
    batch: Option<BatchId>,
    repair: Repair,
    cluster: &ClusterArgs,
) -> anyhow::Result<()> {
    let (request, format) = repair.request();
    let repaired = cluster.client()?.retry(task, batch, &request).await?;
    print(repaired, format)
}

/// Repairs one step.
pub(crate) async fn step(
    task: TaskId,
    step: &str,
    request: &RepairStep,
    format: Format,
    cluster: &ClusterArgs,
) -> anyhow::Result<()> {
    print(cluster.client()?.repair_step(task, step, request).await?, format)
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
    let behind = (repaired.taken_back > 0)
        .then(|| format!("behind {} steps taken back, which run again", repaired.taken_back));
    let lines: Vec<String> = std::iter::once(format!("task   {} runs again", repaired.id))
        .chain(steps)
        .chain(batches)
        .chain(behind)
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
            taken_back: 0,
        };
        let expect =
            format!("task   {} runs again\nstep   {}\nbatch  {}  7 members", id(1), id(2), id(3));
        assert_eq!(table(&repaired), expect);
        let cascaded = table(&Repaired { taken_back: 3, ..repaired });
        assert_eq!(cascaded, format!("{expect}\nbehind 3 steps taken back, which run again"));
    }
}
