//! A task as people read it.

use std::collections::HashMap;

use tasker_messages::{BatchId, BatchView, StepFailure, StepView, TaskView};

use crate::client::Document;
use crate::output::Format;
use crate::table::{Table, printable};

/// Members of larger batches are shown in numbers.
const MAX_SHOWN_MEMBERS: u32 = 20;

pub(super) fn task(task: Document<TaskView>, format: Format) -> String {
    match format {
        Format::Table => task_table(&task.value),
        Format::Json => task.text,
        Format::Ids => task.value.id.to_string(),
    }
}

fn task_table(task: &TaskView) -> String {
    let mut head = Table::bare(2);
    let mut row = |key: &str, value: String| head.row([key.to_owned(), value]);
    row("task", task.id.to_string());
    row("template", format!("{}/{}@{}", task.namespace, task.name, task.version));
    row("state", task.state.to_string());
    row("created", task.created_at.clone());
    if let Some(finished) = &task.finished_at {
        row("finished", finished.clone());
    }
    if let Some(error) = &task.error {
        row("error", failure(error));
    }
    let sizes: HashMap<BatchId, u32> = task.batches.iter().map(|b| (b.id, b.expected)).collect();
    let in_numbers = |step: &&StepView| {
        let size = step.batch_id.and_then(|id| sizes.get(&id));
        size.is_none_or(|&size| size <= MAX_SHOWN_MEMBERS)
    };
    let mut steps = steps_header();
    task.steps.iter().filter(in_numbers).for_each(|step| steps.row(step_row(step)));
    let mut text = format!("{}\n{}", head.render(), steps.render());
    let large: Vec<_> = task.batches.iter().filter(|b| b.expected > MAX_SHOWN_MEMBERS).collect();
    if !large.is_empty() {
        text.push('\n');
        text.push_str(&batch_table(&large));
        text.push_str(&format!("\nall steps: tasker task steps {} --all\n", task.id));
    }
    text
}

fn batch_table(batches: &[&BatchView]) -> String {
    let header = ["BATCH OF", "STATE", "MEMBERS", "COMPLETE", "FAILED", "REMAINING"];
    let mut table = Table::with_header(&header);
    for batch in batches {
        let numbers = [batch.expected, batch.succeeded, batch.failed, batch.remaining];
        let names = [batch.worker_template.clone(), batch.state.to_string()];
        table.row(names.into_iter().chain(numbers.map(|n| n.to_string())));
    }
    table.render()
}

/// Steps, one a line.
pub(super) fn step_table(steps: &[StepView]) -> String {
    let mut table = steps_header();
    steps.iter().for_each(|step| table.row(step_row(step)));
    table.render()
}

fn steps_header() -> Table {
    Table::with_header(&["STEP", "TYPE", "STATE", "ATTEMPT", "TIME", "ERROR", "ID"])
}

fn step_row(step: &StepView) -> [String; 7] {
    let results = step.results.as_ref();
    [
        step.name.clone(),
        step.kind.to_string(),
        step.state.to_string(),
        step.attempt.to_string(),
        results.map_or(String::new(), |r| format!("{} ms", r.metadata.execution_time_ms)),
        results.and_then(|r| r.error.as_ref()).map_or(String::new(), failure),
        step.id.to_string(),
    ]
}

fn failure(error: &StepFailure) -> String {
    const LONGEST: usize = 160;
    let message = printable(&error.message);
    let mut shown: String = message.chars().take(LONGEST).collect();
    if shown.len() < message.len() {
        shown.push('…');
    }
    format!("{shown} [{}]", error.code)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(members: u32, listed: u32) -> TaskView {
        let id = |n: u32| format!("0190a0a0-0000-7000-8000-{n:012}");
        let mut steps = vec![json!({"id": id(1), "name": "analyze", "type": "batchable",
            "state": "complete", "attempt": 1, "results": {"success": true, "result": {},
            "metadata": {"execution_time_ms": 12, "completed_at": "", "attempt": 1}}})];
        for n in 0..listed {
            steps.push(json!({"id": id(100 + n), "name": format!("work_{n:03}"),
                "type": "batch_worker", "state": "complete", "attempt": 1, "batch_id": id(2)}));
        }
        serde_json::from_value(json!({
            "id": id(0), "namespace": "n", "name": "t", "version": "1", "state": "error",
            "priority": 0, "created_at": "then", "context": {}, "steps": steps,
            "error": {"code": "X", "message": "no\nfile", "retryable": false},
            "batches": [{"id": id(2), "batchable_step": "analyze", "worker_template": "work",
                "state": "converged", "expected": members, "published": members,
                "succeeded": members, "failed": 0, "remaining": 0, "is_no_op": false}],
        }))
        .expect("a task")
    }

    #[test]
    fn members_of_small_batches_are_listed_and_of_large_ones_counted() {
        let small = task_table(&view(2, 2));
        assert!(small.contains("state     error"), "{small}");
        assert!(small.contains("no\\nfile [X]"), "{small}");
        assert!(small.contains("work_001") && !small.contains("BATCH OF"), "{small}");
        let large = task_table(&view(53, 53));
        assert!(!large.contains("work_001") && large.contains("12 ms"), "{large}");
        assert!(large.contains("work      converged  53       53        0       0"), "{large}");
    }
}
