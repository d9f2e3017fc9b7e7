//! Reads for the API and for `tasker.task.get`.

use serde_json::Value;
use serde_json::value::RawValue;
use tasker_messages::{
    BatchId, BatchMetadata, BatchWorkerInputs, CheckpointView, CursorConfig, FailedAttempt,
    GetMembers, MemberResult, MembersPage, Namespace, ResultMetadata, Scope, StepFailure,
    StepHistory, StepId, StepKind, StepPage, StepResults, StepState, StepView, TaskId, TaskList,
    TaskState, TaskSummary, TaskView, TemplateId,
};
use tasker_workflow::Template;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::events::events_of_outcome;
use crate::shared::batch_metadata;
use crate::{Store, StoreError};

pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
    // Years beyond 9999 cannot be written; the database's clock does not make them.
    at.format(&Rfc3339).unwrap_or_default()
}

pub(crate) fn parse<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, StoreError>
where
    T::Err: ToString,
{
    text.parse().map_err(|e: T::Err| StoreError::stored(what, e))
}

pub(crate) fn raw(text: String) -> Result<Box<RawValue>, StoreError> {
    RawValue::from_string(text).map_err(|e| StoreError::stored("json", e))
}

pub(crate) fn failure(text: Option<String>) -> Result<Option<StepFailure>, StoreError> {
    let failure = text.map(|t| serde_json::from_str(&t)).transpose();
    failure.map_err(|e| StoreError::stored("error", e))
}

/// A step's state as users see it: that of its outcome, if there is one. A batchable step whose batch
/// is not sealed is expanding.
pub(crate) fn step_state(
    outcome: Option<&str>,
    kind: StepKind,
    unsettled: bool,
    live_state: &str,
) -> Result<StepState, StoreError> {
    match outcome {
        Some("complete") if unsettled && kind == StepKind::Batchable => Ok(StepState::Expanding),
        Some(outcome) => parse("step state", outcome),
        None => parse("step state", live_state),
    }
}

/// A step and its outcome as one row.
pub(crate) struct StepRow {
    id: Uuid,
    name: String,
    kind: String,
    live_state: String,
    unsettled: bool,
    attempt: i32,
    batch_id: Option<Uuid>,
    cursor: Option<String>,
    is_no_op: Option<bool>,
    worker_template: Option<String>,
    outcome: Option<String>,
    outcome_attempt: Option<i32>,
    result: Option<String>,
    error: Option<String>,
    worker: Option<Uuid>,
    execution_ms: Option<i32>,
    ended_at: Option<OffsetDateTime>,
    checkpoint_cursor: Option<String>,
    checkpoint_items: Option<i64>,
    checkpoint_at: Option<OffsetDateTime>,
}

impl StepRow {
    pub(crate) fn view(self, template: &Template) -> Result<StepView, StoreError> {
        let kind = parse("step kind", &self.kind)?;
        let state = step_state(self.outcome.as_deref(), kind, self.unsettled, &self.live_state)?;
        let inputs = match &self.cursor {
            Some(text) => {
                let worker = self.worker_template.as_deref().unwrap_or_default();
                inputs(text, self.is_no_op.unwrap_or(false), batch_metadata(template, worker))?
            }
            None => Value::Null,
        };
        let results = match (&self.outcome, self.ended_at) {
            (Some(outcome), Some(at)) => Some(StepResults {
                success: outcome == "complete",
                result: self.result.map(raw).transpose()?,
                error: failure(self.error)?,
                metadata: ResultMetadata {
                    execution_time_ms: self.execution_ms.unwrap_or(0) as u32,
                    completed_at: rfc3339(at),
                    worker_id: self.worker.map(|w| w.to_string()),
                    attempt: self.outcome_attempt.unwrap_or(0) as u32,
                },
            }),
            _ => None,
        };
        let checkpoint = match (self.checkpoint_cursor, self.checkpoint_items, self.checkpoint_at) {
            (Some(cursor), Some(items), Some(at)) => Some(CheckpointView {
                cursor: raw(cursor)?,
                items_processed: items as u64,
                timestamp: rfc3339(at),
            }),
            _ => None,
        };
        Ok(StepView {
            checkpoint,
            id: StepId::from_uuid(self.id),
            name: self.name,
            kind,
            state,
            attempt: self.attempt as u32,
            batch_id: self.batch_id.map(BatchId::from_uuid),
            inputs,
            results,
        })
    }
}

fn inputs(
    cursor: &str,
    is_no_op: bool,
    batch_metadata: BatchMetadata,
) -> Result<Value, StoreError> {
    let cursor: CursorConfig =
        serde_json::from_str(cursor).map_err(|e| StoreError::stored("cursor", e))?;
    let inputs = BatchWorkerInputs { cursor, batch_metadata, is_no_op };
    serde_json::to_value(inputs).map_err(|e| StoreError::stored("inputs", e))
}

impl Store {
    /// The steps of a task; members of larger batches are left out.
    pub(crate) async fn steps_of_task(&self, id: TaskId) -> Result<Vec<StepRow>, StoreError> {
        let mut connection = self.reads.lend().await?;
        let steps = sqlx::query_file_as!(
            StepRow,
            "queries/views/steps_of_task.sql",
            id.as_uuid(),
            TaskView::MAX_LISTED_MEMBERS as i32,
        )
        .fetch_all(&mut *connection)
        .await?;
        connection.give_back();
        Ok(steps)
    }

    /// The step of a task with this name, members of batches among them.
    pub async fn find_step(&self, task: TaskId, name: &str) -> Result<Option<StepId>, StoreError> {
        let id = sqlx::query_scalar!(
            r#"select s.id as "id!" from tasker.steps s
               where s.task_id = $1 and s.batch_id is null and s.name = $2
               union all
               select s.id
               from tasker.batches b
               cross join lateral (
                   select m.id, m.name from tasker.steps m
                   where m.id between (left(b.id::text, 28) || '00000000')::uuid
                                  and (left(b.id::text, 28) || 'ffffffff')::uuid
               ) s
               where b.task_id = $1 and b.sealed_at is not null and s.name = $2
               limit 1"#,
            task.as_uuid(),
            name,
        )
        .fetch_optional(&self.api)
        .await?;
        Ok(id.map(StepId::from_uuid))
    }

    /// A step of a task with the attempts that did not end it; `None` if the task has no such step.
    pub async fn step_history(
        &self,
        task: TaskId,
        step: StepId,
    ) -> Result<Option<StepHistory>, StoreError> {
        let found = sqlx::query_scalar!(
            "select t.template_id from tasker.steps s join tasker.tasks t on t.id = s.task_id
             where s.id = $1 and s.task_id = $2",
            step.as_uuid(),
            task.as_uuid(),
        )
        .fetch_optional(&self.api)
        .await?;
        let Some(template_id) = found else { return Ok(None) };
        let template = self.template(TemplateId::from_uuid(template_id)).await?;
        let row = sqlx::query_file_as!(StepRow, "queries/views/step.sql", step.as_uuid())
            .fetch_one(&self.api)
            .await?;
        let rows = sqlx::query!(
            r#"select attempt, error::text as "error!", worker, execution_ms, created_at
               from tasker.failed_attempts where step_id = $1 order by attempt desc limit $2"#,
            step.as_uuid(),
            i64::from(StepHistory::MAX_ATTEMPTS),
        )
        .fetch_all(&self.api)
        .await?;
        let mut attempts = Vec::with_capacity(rows.len());
        for row in rows.into_iter().rev() {
            attempts.push(FailedAttempt {
                attempt: row.attempt as u32,
                error: serde_json::from_str(&row.error)
                    .map_err(|e| StoreError::stored("error", e))?,
                worker_id: row.worker.map(|w| w.to_string()),
                execution_time_ms: row.execution_ms as u32,
                failed_at: rfc3339(row.created_at),
            });
        }
        let name = row.worker_template.as_ref().unwrap_or(&row.name).clone();
        let is_no_op = row.is_no_op.unwrap_or(false);
        let step = row.view(&template)?;
        let told = template.step(&name).filter(|_| !is_no_op);
        let events = match told {
            Some((_, told)) if !told.events.is_empty() => events_of_outcome(told, &step).await,
            _ => Vec::new(),
        };
        Ok(Some(StepHistory { step, attempts, events }))
    }

    /// Whether a task has ended; `None` if there is none of this id in the namespace.
    pub async fn has_ended(
        &self,
        id: TaskId,
        namespace: &Namespace,
    ) -> Result<Option<bool>, StoreError> {
        let mut connection = self.reads.lend().await?;
        let ended = sqlx::query_scalar!(
            r#"select finished_at is not null as "ended!" from tasker.tasks
               where id = $1 and namespace = $2"#,
            id.as_uuid(),
            namespace.as_str(),
        )
        .fetch_optional(&mut *connection)
        .await?;
        connection.give_back();
        Ok(ended)
    }

    /// Whether these tasks have ended, and how; those that have not are left out.
    pub async fn ended_tasks(
        &self,
        ids: &[TaskId],
    ) -> Result<Vec<(TaskId, TaskState)>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|t| t.as_uuid()).collect();
        let rows = sqlx::query!(
            r#"select id, state::text as "state!" from tasker.tasks
               where id = any($1::uuid[]) and finished_at is not null"#,
            &ids
        )
        .fetch_all(&self.api)
        .await?;
        rows.into_iter()
            .map(|row| Ok((TaskId::from_uuid(row.id), parse("task state", &row.state)?)))
            .collect()
    }

    /// The namespace of a task; `None` if there is none of this id.
    pub async fn namespace_of_task(&self, id: TaskId) -> Result<Option<String>, StoreError> {
        let mut connection = self.reads.lend().await?;
        let found =
            sqlx::query_scalar!("select namespace from tasker.tasks where id = $1", id.as_uuid())
                .fetch_optional(&mut *connection)
                .await?;
        connection.give_back();
        Ok(found)
    }

    /// A page of tasks, newest first.
    pub async fn list_tasks(
        &self,
        scope: &Scope,
        state: Option<TaskState>,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<TaskList, StoreError> {
        let names = scope.names();
        let rows = sqlx::query_file!(
            "queries/views/list_tasks.sql",
            names.as_deref(),
            state.map(TaskState::as_str),
            after.map(TaskId::as_uuid),
            i64::from(limit),
        )
        .fetch_all(&self.api)
        .await?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            tasks.push(TaskSummary {
                id: TaskId::from_uuid(row.id),
                namespace: parse("namespace", &row.namespace)?,
                name: row.name,
                version: row.version,
                state: parse("task state", &row.state)?,
                created_at: rfc3339(row.created_at),
                finished_at: row.finished_at.map(rfc3339),
                batches: Vec::new(),
            });
        }
        let full = tasks.len() as u32 == limit;
        let next = tasks.last().filter(|_| full).map(|task| task.id);
        Ok(TaskList { tasks, next })
    }

    /// A page of a task's steps: those that are not members first, then members by batch and
    /// ordinal. `None` if there is no such task.
    pub async fn list_steps(
        &self,
        task: TaskId,
        after: Option<StepId>,
        limit: u32,
    ) -> Result<Option<StepPage>, StoreError> {
        let template_id = sqlx::query_scalar!(
            "select template_id from tasker.tasks where id = $1",
            task.as_uuid()
        )
        .fetch_optional(&self.api)
        .await?;
        let Some(template_id) = template_id else { return Ok(None) };
        let template = self.template(TemplateId::from_uuid(template_id)).await?;
        let rows = sqlx::query_file_as!(
            StepRow,
            "queries/views/list_steps.sql",
            task.as_uuid(),
            after.map(StepId::as_uuid),
            i64::from(limit),
        )
        .fetch_all(&self.api)
        .await?;
        let full = rows.len() as u32 == limit;
        let steps: Vec<StepView> =
            rows.into_iter().map(|s| s.view(&template)).collect::<Result<_, _>>()?;
        let next = steps.last().filter(|_| full).map(|step| step.id);
        Ok(Some(StepPage { steps, next }))
    }

    /// A page of a batch's members with their outcomes, in ordinal order, bounded in number and in
    /// bytes. `None` if there is no such batch in the namespace.
    pub async fn members_page(
        &self,
        namespace: &Namespace,
        request: &GetMembers,
        max_members: u32,
        max_bytes: usize,
    ) -> Result<Option<MembersPage>, StoreError> {
        let limit = request.limit.clamp(1, max_members);
        let last = request.from.saturating_add(limit - 1);
        let rows = sqlx::query_file!(
            "queries/views/members.sql",
            request.batch_id.member(request.from).as_uuid(),
            request.batch_id.member(last).as_uuid(),
            max_bytes as i64,
            request.batch_id.as_uuid(),
            namespace.as_str(),
        )
        .fetch_all(&self.hot)
        .await?;
        let Some(expected) = rows.first().map(|row| row.expected as u32) else { return Ok(None) };
        let upto = request.from.saturating_add(limit).min(expected);
        let mut page = MembersPage { members: Vec::new(), next: None };
        for row in rows {
            let (Some(id), Some(name), Some(state)) = (row.id, row.name, row.state) else { break };
            page.members.push(MemberResult {
                ordinal: StepId::from_uuid(id).ordinal(),
                name,
                state: parse("step state", &state)?,
                result: row.result.map(raw).transpose()?,
                error: failure(row.error)?,
            });
        }
        let end = page.members.last().map_or(upto, |m| m.ordinal + 1);
        page.next = (end < expected).then_some(end);
        Ok(Some(page))
    }
}
