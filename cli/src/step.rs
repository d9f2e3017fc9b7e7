//! `tasker step …`.

use clap::{Args, Subcommand};
use serde_json::Value;
use tasker_messages::{RepairStep, Retry, StepAction, StepHistory, TaskId};

use crate::client::Document;
use crate::cluster::ClusterArgs;
use crate::output::{self, Format, OutputArgs};
use crate::repair::{self, Repair};
use crate::table::Table;

#[derive(Debug, Subcommand)]
pub(crate) enum StepCommand {
    /// Print a step with its inputs, checkpoint, outcome and failed attempts
    Get {
        task: TaskId,
        /// The step's id or name
        step: String,
        #[command(flatten)]
        output: OutputArgs,
    },
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

#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    task: TaskId,
    /// The step's id or name
    step: String,
    #[command(flatten)]
    repair: Repair,
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))
}

pub(crate) async fn run(command: StepCommand, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let (args, action, result) = match command {
        StepCommand::Get { task, step, output } => {
            let history = cluster.client()?.step(task, &step).await?;
            return Ok(output::print(&render(history, output.format)?)?);
        }
        StepCommand::Reset(args) => (args, StepAction::ResetForRetry, None),
        StepCommand::Resolve(args) => (args, StepAction::ResolveManually, None),
        StepCommand::Complete { result, step } => {
            (step, StepAction::CompleteManually, Some(result))
        }
    };
    let StepArgs { task, step, repair } = args;
    let (Retry { reason, by, cascade }, format) = repair.request();
    let request = RepairStep { action, reason, by, result, cascade };
    repair::step(task, &step, &request, format, cluster).await
}

fn render(history: Document<StepHistory>, format: Format) -> serde_json::Result<String> {
    let StepHistory { step, attempts, events } = &history.value;
    match format {
        Format::Json => return Ok(history.text),
        Format::Ids => return Ok(step.id.to_string()),
        Format::Table => {}
    }
    let mut head = Table::bare(2);
    let mut row = |key: &str, value: String| head.row([key.to_owned(), value]);
    row("step", format!("{}  {}", step.name, step.id));
    row("type", step.kind.to_string());
    row("state", step.state.to_string());
    row("attempt", step.attempt.to_string());
    if !step.inputs.is_null() {
        row("inputs", step.inputs.to_string());
    }
    if let Some(checkpoint) = &step.checkpoint {
        let place = format!(
            "{} items, at {} ({})",
            checkpoint.items_processed, checkpoint.cursor, checkpoint.timestamp
        );
        row("checkpoint", place);
    }
    if let Some(results) = &step.results {
        row("ended", results.metadata.completed_at.clone());
        row("worker", results.metadata.worker_id.clone().unwrap_or_default());
        row("time", format!("{} ms", results.metadata.execution_time_ms));
        if let Some(result) = &results.result {
            row("result", result.to_string());
        }
        if let Some(error) = &results.error {
            row("error", format!("{} [{}]", error.message, error.code));
        }
    }
    for event in events {
        let withheld = match event.violations.first() {
            Some(first) => format!("{}  not published: {first}", event.event),
            None => event.event.to_string(),
        };
        row("event", withheld);
    }
    let mut text = head.render();
    if !attempts.is_empty() {
        let mut table = Table::with_header(&["FAILED ATTEMPT", "AT", "TIME", "ERROR"]);
        for failed in attempts {
            table.row([
                failed.attempt.to_string(),
                failed.failed_at.clone(),
                format!("{} ms", failed.execution_time_ms),
                format!("{} [{}]", failed.error.message, failed.error.code),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_with_its_attempts() {
        let text = json!({
            "step": {"id": "0190a0a0-0000-7000-8000-000000000001", "name": "work_001",
                "type": "batch_worker", "state": "complete", "attempt": 2, "inputs": {"cursor": 1},
                "checkpoint": {"cursor": {"row": 7}, "items_processed": 7, "timestamp": "then"},
                "results": {"success": true, "result": [1], "metadata": {"execution_time_ms": 5,
                    "completed_at": "now", "worker_id": "w", "attempt": 2}}},
            "attempts": [{"attempt": 1, "error": {"code": "NO", "message": "never",
                "retryable": true}, "execution_time_ms": 9, "failed_at": "before"}],
            "events": [{"event_id": "i", "event": "told"}, {"event_id": "j", "event": "kept",
                "violations": ["result.n: is no text", "result.m: is missing"]}],
        });
        let value = serde_json::from_value(text.clone()).expect("a step");
        let document = Document { text: text.to_string(), value };
        let shown = render(document, Format::Table).expect("text");
        assert_eq!(
            shown,
            "step        work_001  0190a0a0-0000-7000-8000-000000000001\n\
             type        batch_worker\n\
             state       complete\n\
             attempt     2\n\
             inputs      {\"cursor\":1}\n\
             checkpoint  7 items, at {\"row\":7} (then)\n\
             ended       now\n\
             worker      w\n\
             time        5 ms\n\
             result      [1]\n\
             event       told\n\
             event       kept  not published: result.n: is no text\n\n\
             FAILED ATTEMPT  AT      TIME  ERROR\n\
             1               before  9 ms  never [NO]\n"
        );
        assert!(json("{").is_err());
    }
}
