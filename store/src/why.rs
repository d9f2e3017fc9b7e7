//! Why a task is where it is.

use std::collections::HashSet;
use std::time::Duration;

use tasker_messages::{
    BatchState, BatchView, Namespace, StepKind, StepState, TaskId, TaskState, TemplateId, Why,
};
use tasker_workflow::{
    BatchFact, Choice, Ending, Lease, StepDetail, StepFact, TaskDetail, TaskStop, stored_choice,
    why,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::views::{failure, parse, rfc3339, step_state};
use crate::{Store, StoreError};

/// One row of `queries/views/why.sql`.
struct Row {
    name: String,
    kind: String,
    live_state: String,
    unsettled: bool,
    attempt: i32,
    published: bool,
    run_after: Option<OffsetDateTime>,
    lease_worker: Option<Uuid>,
    lease_until: Option<OffsetDateTime>,
    lease_expired: bool,
    worker_name: Option<String>,
    last_beat_at: Option<OffsetDateTime>,
    outcome: Option<String>,
    error: Option<String>,
    choice: Option<String>,
}

impl Store {
    /// Why a task is where it is; `None` if there is none of this id. A worker is live if its last
    /// recorded heartbeat is not older than `live_within`.
    pub async fn explain_task(
        &self,
        id: TaskId,
        live_within: Duration,
    ) -> Result<Option<Why>, StoreError> {
        let Some(row) = self.task_row(id, None).await? else { return Ok(None) };
        let state: TaskState = parse("task state", &row.state)?;
        let namespace: Namespace = parse("namespace", &row.namespace)?;
        let template = self.template(TemplateId::from_uuid(row.template_id)).await?;
        let mut detail = self.detail(id).await?;
        detail.stopped = match (state, row.is_stale) {
            (TaskState::Cancelled, _) => Some(TaskStop::Cancelled),
            (_, true) => Some(TaskStop::Stale),
            _ => None,
        };
        detail.offers = self.offers(&namespace, live_within).await?;
        let limits = self.limits_of(&namespace).await?;
        (detail.limits, detail.limit) = (limits.queues, limits.max_running);
        let reasons = why(&template, &detail);
        Ok(Some(Why { id, state, error: failure(row.error)?, reasons }))
    }

    async fn detail(&self, id: TaskId) -> Result<TaskDetail, StoreError> {
        let rows = sqlx::query_file_as!(Row, "queries/views/why.sql", id.as_uuid())
            .fetch_all(&self.api)
            .await?;
        let batches = self.batches_and_stops(id).await?;
        let mut detail = TaskDetail::default();
        for row in rows {
            row.note(&mut detail)?;
        }
        for (batch, stopped) in batches {
            let worker = batch.worker_template.clone();
            if !matches!(batch.state, BatchState::Expanding | BatchState::Cancelled) {
                let BatchView { remaining, succeeded, failed, .. } = batch;
                let fact = BatchFact { remaining, succeeded, failed, stopped };
                detail.facts.batches.insert(worker.clone(), fact);
            }
            detail.batches.insert(worker, batch);
        }
        Ok(detail)
    }
}

impl Row {
    fn note(self, detail: &mut TaskDetail) -> Result<(), StoreError> {
        let kind: StepKind = parse("step kind", &self.kind)?;
        let outcome = self.outcome.as_deref();
        let state = step_state(outcome, kind, self.unsettled, &self.live_state)?;
        let ended = match state {
            StepState::Complete | StepState::ResolvedManually => Some(Ending::Succeeded),
            StepState::Error | StepState::Cancelled => Some(Ending::Failed),
            _ => None,
        };
        detail.facts.steps.insert(self.name.clone(), StepFact { ended });
        if let Some(choice) = &self.choice {
            let steps: HashSet<String> = stored_choice(Some(choice));
            let choice = Choice { steps, settled: !self.unsettled };
            detail.facts.choices.insert(self.name.clone(), choice);
        }
        let lease = self.lease_worker.zip(self.lease_until).map(|(worker, until)| Lease {
            worker: self.worker_name.unwrap_or_else(|| worker.to_string()),
            last_beat: self.last_beat_at.map(rfc3339),
            until: rfc3339(until),
            expired: self.lease_expired,
        });
        let step = StepDetail {
            state,
            attempt: self.attempt as u32,
            published: self.published,
            run_after: self.run_after.map(rfc3339),
            lease,
            error: failure(self.error)?,
        };
        detail.steps.insert(self.name, step);
        Ok(())
    }
}
