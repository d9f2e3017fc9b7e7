//! Rows of steps that are no members of batches, by column.

use std::collections::HashMap;

use tasker_messages::{StepId, TaskId};
use uuid::Uuid;

/// A step that is not a member of a batch.
pub(crate) struct NewStepRow<'a> {
    pub(crate) id: StepId,
    pub(crate) task_id: TaskId,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) ready: bool,
    pub(crate) pending_parents: u32,
    /// Edges that are inserted together with the step.
    pub(crate) children: u32,
    pub(crate) unsettled: bool,
    pub(crate) queue: &'a str,
}

/// Columns of steps that are to be inserted.
#[derive(Default)]
pub(crate) struct StepRows {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) task_ids: Vec<Uuid>,
    pub(crate) namespaces: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) kinds: Vec<String>,
    pub(crate) ready: Vec<bool>,
    pub(crate) pending_parents: Vec<i32>,
    pub(crate) children: Vec<i32>,
    pub(crate) unsettled: Vec<bool>,
    pub(crate) queues: Vec<String>,
}

impl StepRows {
    pub(crate) fn push(&mut self, row: NewStepRow<'_>) {
        self.ids.push(row.id.as_uuid());
        self.task_ids.push(row.task_id.as_uuid());
        self.namespaces.push(row.namespace.to_owned());
        self.names.push(row.name.to_owned());
        self.kinds.push(row.kind.to_owned());
        self.ready.push(row.ready);
        self.pending_parents.push(row.pending_parents as i32);
        self.children.push(row.children as i32);
        self.unsettled.push(row.unsettled);
        self.queues.push(row.queue.to_owned());
    }

    /// Counts the edges that go from these steps, which are all that do.
    pub(crate) fn count_children(&mut self, edges: &[(Uuid, Uuid)]) {
        let mut of: HashMap<Uuid, i32> = HashMap::new();
        for (parent, _) in edges {
            *of.entry(*parent).or_default() += 1;
        }
        for (id, children) in self.ids.iter().zip(&mut self.children) {
            *children = of.get(id).copied().unwrap_or(0);
        }
    }
}
