//! `tasker batch …`.

use clap::Subcommand;
use tasker_messages::{BatchAudit, BatchId, BatchView, TaskId};

use crate::client::Document;
use crate::cluster::ClusterArgs;
use crate::exit::{Code, Exit};
use crate::output::{self, Format, OutputArgs};
use crate::repair::{self, Repair};
use crate::table::{Table, printable};

#[derive(Debug, Subcommand)]
pub(crate) enum BatchCommand {
    /// List the batches of a task
    List {
        task: TaskId,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print a batch in numbers
    Show {
        batch: BatchId,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Hold a batch against its members: counters, gaps, overlaps, doubles (exit code 6 if not sound)
    Verify {
        batch: BatchId,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Run the failed members of a batch again; of a stopped one, the cancelled members too
    Retry {
        task: TaskId,
        batch: BatchId,
        #[command(flatten)]
        repair: Repair,
    },
}

pub(crate) async fn run(command: BatchCommand, cluster: &ClusterArgs) -> anyhow::Result<()> {
    match command {
        BatchCommand::List { task, output } => {
            let batches = cluster.client()?.summary(task).await?.batches;
            let text = match output.format {
                Format::Table => table(&batches),
                Format::Json => serde_json::to_string(&batches)?,
                Format::Ids => batches.iter().map(|batch| format!("{}\n", batch.id)).collect(),
            };
            Ok(output::print(&text)?)
        }
        BatchCommand::Show { batch, output } => {
            let Document { text, value } = cluster.client()?.batch(batch).await?;
            let text = match output.format {
                Format::Table => table(&[value]),
                Format::Json => text,
                Format::Ids => value.id.to_string(),
            };
            Ok(output::print(&text)?)
        }
        BatchCommand::Verify { batch, output } => {
            let audit = cluster.client()?.audit(batch).await?;
            let ok = audit.value.ok;
            output::print(&checks(audit, output.format))?;
            if ok {
                return Ok(());
            }
            Err(Exit::new(Code::NotVerified, format!("batch {batch} is not sound")).into())
        }
        BatchCommand::Retry { task, batch, repair } => {
            repair::retry(task, Some(batch), repair, cluster).await
        }
    }
}

fn table(batches: &[BatchView]) -> String {
    let header = ["ID", "OF", "STATE", "MEMBERS", "PUBLISHED", "COMPLETE", "FAILED", "REMAINING"];
    let mut table = Table::with_header(&header);
    for batch in batches {
        let BatchView { expected, published, succeeded, failed, remaining, .. } = *batch;
        let names = [batch.id.to_string(), batch.worker_template.clone(), batch.state.to_string()];
        let numbers = [expected, published, succeeded, failed, remaining].map(|n| n.to_string());
        table.row(names.into_iter().chain(numbers));
    }
    table.render()
}

fn checks(audit: Document<BatchAudit>, format: Format) -> String {
    let BatchAudit { batch, checks, .. } = &audit.value;
    match format {
        Format::Json => audit.text,
        Format::Ids => batch.id.to_string(),
        Format::Table => {
            let line = |check: &tasker_messages::Check| {
                let verdict = if check.ok { "ok  " } else { "FAIL" };
                format!("{verdict}  {:10} {}\n", check.name, printable(&check.message))
            };
            let lines: String = checks.iter().map(line).collect();
            format!("batch {}  {}\n{lines}", batch.id, batch.state)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn checks_as_people_read_them() {
        let id = "0190a0a0-0000-7000-8000-000000000002";
        let audit = json!({"ok": false, "batch": {"id": id, "batchable_step": "s",
            "worker_template": "w", "state": "sealed", "expected": 4, "published": 4,
            "succeeded": 1, "failed": 0, "remaining": 3, "is_no_op": false},
            "checks": [{"name": "members", "ok": true, "message": "all"},
                {"name": "ranges", "ok": false, "message": "a\u{1b}gap"}]});
        let value: BatchAudit = serde_json::from_value(audit.clone()).expect("an audit");
        let batch = value.batch.clone();
        let shown = checks(Document { text: audit.to_string(), value }, Format::Table);
        let expect =
            format!("batch {id}  sealed\nok    members    all\nFAIL  ranges     a\\u{{1b}}gap\n");
        assert_eq!(shown, expect);
        assert_eq!(
            table(&[batch]),
            format!(
                "ID                                    OF  STATE   MEMBERS  PUBLISHED  COMPLETE  \
                 FAILED  REMAINING\n{id}  w   sealed  4        4          1         0       3\n"
            )
        );
    }
}
