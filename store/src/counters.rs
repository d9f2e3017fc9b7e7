//! Counters of tasks. They change by the rows that really changed, as the last statements of a
//! transaction; exactly one transaction sees a task end.

use std::collections::BTreeMap;

use tasker_messages::{Namespace, StepFailure, TaskId, TaskState};
use tasker_workflow::task_end;
use uuid::Uuid;

use crate::StoreError;
use crate::pool::Tx;

/// A task that a transaction has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedTask {
    /// The task.
    pub id: TaskId,
    /// Its namespace.
    pub namespace: Namespace,
    /// How it ended.
    pub state: TaskState,
}

#[derive(Debug, Default, Clone)]
struct Delta {
    active: i32,
    pending: i32,
    failed: i32,
    error: Option<StepFailure>,
}

/// What a transaction changes in the counters of tasks.
#[derive(Debug, Default)]
pub(crate) struct TaskDeltas(BTreeMap<Uuid, Delta>);

impl TaskDeltas {
    /// An active step (or batch) has ended.
    pub(crate) fn ended(&mut self, task: Uuid, succeeded: bool) {
        let delta = self.0.entry(task).or_default();
        delta.active -= 1;
        delta.failed += i32::from(!succeeded);
    }

    /// A step that ended earlier gives up its place in the count of active ones.
    pub(crate) fn settled(&mut self, task: Uuid) {
        self.0.entry(task).or_default().active -= 1;
    }

    /// A pending step has become ready.
    pub(crate) fn released(&mut self, task: Uuid) {
        let delta = self.0.entry(task).or_default();
        delta.active += 1;
        delta.pending -= 1;
    }

    /// So many pending steps will never exist.
    pub(crate) fn never(&mut self, task: Uuid, steps: usize) {
        if steps > 0 {
            self.0.entry(task).or_default().pending -= steps as i32;
        }
    }

    /// What to say of the task if no step of it has an error of its own.
    pub(crate) fn explain(&mut self, task: Uuid, error: StepFailure) {
        self.0.entry(task).or_default().error.get_or_insert(error);
    }

    /// Applies the changes to tasks that have not ended; returns those that end by it.
    pub(crate) async fn apply(self, tx: &mut Tx) -> Result<Vec<FinishedTask>, StoreError> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let column = |get: fn(&Delta) -> i32| self.0.values().map(get).collect::<Vec<i32>>();
        let ids: Vec<Uuid> = self.0.keys().copied().collect();
        let rows = sqlx::query_file!(
            "queries/outcomes/count_tasks.sql",
            &ids,
            &column(|d| d.active),
            &column(|d| d.pending),
            &column(|d| d.failed),
        )
        .fetch_all(&mut **tx)
        .await?;
        self.keep_explanations(tx).await?;
        let mut ending = Ending::default();
        for row in rows {
            let count = |n: i32| u32::try_from(n).unwrap_or(0);
            let state = task_end(
                count(row.active_steps),
                count(row.pending_steps),
                count(row.failed_steps),
            );
            if let Some(state) = state {
                ending.push(row.id, &row.namespace, state)?;
            }
        }
        ending.apply(tx).await
    }

    /// Keeps what explains a failure until the task ends, which may be much later.
    async fn keep_explanations(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let mut ids = Vec::new();
        let mut errors = Vec::new();
        for (id, error) in self.0.iter().filter_map(|(id, d)| Some((*id, d.error.as_ref()?))) {
            ids.push(id);
            errors.push(serde_json::to_string(error).map_err(|e| StoreError::stored("error", e))?);
        }
        if !ids.is_empty() {
            sqlx::query!(
                "update tasker.tasks t set error = e.error::json
                 from unnest($1::uuid[], $2::text[]) as e(id, error)
                 where t.id = e.id and t.state in ('pending', 'in_progress')
                   and t.error is null",
                &ids,
                &errors,
            )
            .execute(&mut **tx)
            .await?;
        }
        Ok(())
    }
}

/// Tasks that end in this transaction.
#[derive(Default)]
struct Ending {
    finished: Vec<FinishedTask>,
    ids: Vec<Uuid>,
    states: Vec<String>,
}

impl Ending {
    fn push(&mut self, id: Uuid, namespace: &str, state: TaskState) -> Result<(), StoreError> {
        let namespace =
            Namespace::new(namespace).map_err(|e| StoreError::stored("namespace", e))?;
        self.finished.push(FinishedTask { id: TaskId::from_uuid(id), namespace, state });
        self.ids.push(id);
        self.states.push(state.as_str().to_owned());
        Ok(())
    }

    async fn apply(self, tx: &mut Tx) -> Result<Vec<FinishedTask>, StoreError> {
        if self.ids.is_empty() {
            return Ok(self.finished);
        }
        sqlx::query_file!("queries/outcomes/finish_tasks.sql", &self.ids, &self.states,)
            .execute(&mut **tx)
            .await?;
        Ok(self.finished)
    }
}
