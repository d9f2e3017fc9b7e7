//! A task as users see it: with its steps, or in numbers.

use std::future::{Future, ready};

use tasker_messages::{Namespace, TaskId, TaskSummary, TaskView, TemplateId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::views::{StepRow, failure, parse, raw, rfc3339};
use crate::{Store, StoreError};

/// A task without its steps.
pub(crate) struct TaskRow {
    pub(crate) namespace: String,
    pub(crate) template_id: Uuid,
    name: String,
    version: String,
    pub(crate) state: String,
    priority: i16,
    pub(crate) error: Option<String>,
    /// Whether it was ended by its limits of time.
    pub(crate) is_stale: bool,
    created_at: OffsetDateTime,
    finished_at: Option<OffsetDateTime>,
    context: String,
}

impl Store {
    /// A task with its steps; members of larger batches are left out.
    pub async fn view_task(
        &self,
        id: TaskId,
        namespace: Option<&Namespace>,
    ) -> Result<Option<TaskView>, StoreError> {
        let Some(task) = self.task_row(id, namespace).await? else { return Ok(None) };
        // After the task: one that has ended must not be shown with steps that still ran.
        let steps = self.steps_of_task(id);
        self.complete_view(id, task, steps).await.map(Some)
    }

    /// The same of a task that is known to have ended: both parts are read at the same time, since nothing
    /// of it changes, unless somebody repairs it in that moment.
    pub async fn view_ended_task(
        &self,
        id: TaskId,
        namespace: Option<&Namespace>,
    ) -> Result<Option<TaskView>, StoreError> {
        let (task, steps) = tokio::try_join!(self.task_row(id, namespace), self.steps_of_task(id))?;
        let Some(task) = task else { return Ok(None) };
        self.complete_view(id, task, ready(Ok(steps))).await.map(Some)
    }

    /// The row of a task; `None` if there is none of this id in the namespace.
    pub(crate) async fn task_row(
        &self,
        id: TaskId,
        namespace: Option<&Namespace>,
    ) -> Result<Option<TaskRow>, StoreError> {
        let namespace = namespace.map(Namespace::as_str);
        let task = sqlx::query_file_as!(TaskRow, "queries/views/task.sql", id.as_uuid(), namespace);
        let mut connection = self.reads.lend().await?;
        let row = task.fetch_optional(&mut *connection).await?;
        connection.give_back();
        Ok(row)
    }

    async fn complete_view(
        &self,
        id: TaskId,
        row: TaskRow,
        steps: impl Future<Output = Result<Vec<StepRow>, StoreError>>,
    ) -> Result<TaskView, StoreError> {
        let template = self.template(TemplateId::from_uuid(row.template_id)).await?;
        let batches = async {
            if template.has_batches() { self.view_batches(id).await } else { Ok(Vec::new()) }
        };
        let (batches, steps) = tokio::try_join!(batches, steps)?;
        Ok(TaskView {
            id,
            namespace: parse("namespace", &row.namespace)?,
            name: row.name,
            version: row.version,
            state: parse("task state", &row.state)?,
            priority: row.priority as i8,
            error: failure(row.error)?,
            created_at: rfc3339(row.created_at),
            finished_at: row.finished_at.map(rfc3339),
            context: raw(row.context)?,
            steps: steps.into_iter().map(|s| s.view(&template)).collect::<Result<_, _>>()?,
            batches,
        })
    }

    /// A task in numbers, for progress displays.
    pub async fn summarize_task(&self, id: TaskId) -> Result<Option<TaskSummary>, StoreError> {
        let Some(row) = self.task_row(id, None).await? else { return Ok(None) };
        Ok(Some(TaskSummary {
            id,
            namespace: parse("namespace", &row.namespace)?,
            name: row.name,
            version: row.version,
            state: parse("task state", &row.state)?,
            created_at: rfc3339(row.created_at),
            finished_at: row.finished_at.map(rfc3339),
            batches: self.view_batches(id).await?,
        }))
    }
}
