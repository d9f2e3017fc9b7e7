//! Every state with every operation: what it does, or how it is refused; and that nothing else changes.
//! `docs/reference.md` has the same tables.

mod steps;
mod tasks;

use std::collections::BTreeMap;
use std::fs;

use sqlx::types::Json;
use tasker_messages::TaskId;

use super::World;

/// Everything that is stored about a task.
#[derive(PartialEq)]
struct Snapshot {
    /// Steps with their outcomes and checkpoints, by name: the state, and all columns.
    steps: BTreeMap<String, (String, serde_json::Value)>,
    task_state: String,
    /// The task, its batches, and how much was noted about it.
    rest: serde_json::Value,
}

impl World {
    async fn snapshot(&self, task: TaskId) -> Snapshot {
        let steps: Vec<(String, String, Json<serde_json::Value>)> =
            sqlx::query_as(STEPS).bind(task.as_uuid()).fetch_all(&self.pool).await.expect("read");
        let (task_state, rest): (String, Json<serde_json::Value>) =
            sqlx::query_as(REST).bind(task.as_uuid()).fetch_one(&self.pool).await.expect("read");
        let steps = steps.into_iter().map(|(name, state, row)| (name, (state, row.0))).collect();
        Snapshot { steps, task_state, rest: rest.0 }
    }
}

impl Snapshot {
    fn state(&self, step: &str) -> Option<&str> {
        self.steps.get(step).map(|(state, _)| state.as_str())
    }

    /// The steps whose rows differ, as `name=state`, and the task's state if that does. The step that is
    /// meant is `it`.
    fn changes_since(&self, before: &Snapshot, it: &str) -> String {
        let changed = self.steps.iter().filter(|(name, row)| before.steps.get(*name) != Some(row));
        let mut changes: Vec<String> = changed
            .map(|(name, (state, _))| {
                format!("{}={state}", if name == it { "it" } else { name.as_str() })
            })
            .collect();
        if self.task_state != before.task_state {
            changes.push(format!("task={}", self.task_state));
        }
        changes.join(" ")
    }
}

/// The reference must have a row of these cells for the state.
fn assert_documented(state: &str, cells: &[String]) {
    let end = state.find([' ', ',']).unwrap_or(state.len());
    let (name, more) = state.split_at(end);
    let row = format!("| `{name}`{more} | {} |", cells.join(" | "));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference.md");
    let reference = fs::read_to_string(path).expect("the reference");
    assert!(reference.lines().any(|line| line == row), "docs/reference.md lacks\n{row}");
}

const STEPS: &str = "
    select s.name,
           case when o.state = 'complete' and s.unsettled and s.kind = 'batchable' then 'expanding'
                else coalesce(o.state::text, s.state::text) end,
           jsonb_build_array(to_jsonb(s), to_jsonb(o), to_jsonb(c))
    from tasker.steps s
    left join tasker.outcomes o on o.step_id = s.id
    left join tasker.checkpoints c on c.step_id = s.id
    where s.task_id = $1";

const REST: &str = "
    select t.state::text,
           jsonb_build_array(
               to_jsonb(t),
               (select jsonb_agg(to_jsonb(b)) from tasker.batches b where b.task_id = t.id),
               (select count(*) from tasker.admin_actions a where a.task_id = t.id),
               (select count(*) from tasker.failed_attempts f
                join tasker.steps s on s.id = f.step_id where s.task_id = t.id))
    from tasker.tasks t where t.id = $1";
