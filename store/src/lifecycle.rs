//! Limits of time: tasks that are due for a look, and what follows from it.

use std::collections::HashMap;
use std::sync::Arc;

use tasker_messages::{Namespace, StepFailure, StepId, TaskId, TaskState, TemplateId, WorkerId};
use tasker_workflow::{
    Review, StalenessAction, StepPhase, StepTiming, TaskTiming, Template, overdue,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::cancel::Ending;
use crate::views::parse;
use crate::{Cancelled, FinishedAttempt, FinishedTask, Store, StoreError};

/// What looking at tasks has led to.
#[derive(Debug, Default)]
pub struct Reviewed {
    /// How many tasks were looked at.
    pub tasks: u32,
    /// Tasks that were ended, because they passed a limit.
    pub ended: Vec<FinishedTask>,
    /// Attempts whose time is over although nobody is left to say so: to be reported as failed.
    pub overdue: Vec<(Namespace, FinishedAttempt)>,
}

/// A task that is due.
struct Due {
    id: TaskId,
    namespace: Namespace,
    template: Arc<Template>,
    timing: TaskTiming,
    /// By when others may look at it; changes with whatever begins its times anew.
    check_at: OffsetDateTime,
    /// Members of its open batches, all of which a look reads.
    members: u64,
    /// Who runs which step.
    workers: HashMap<StepId, Uuid>,
}

/// Members of which one more millisecond passes between two looks at a task.
const MEMBERS_PER_MS: u64 = 50;

impl Store {
    /// Looks at tasks whose limits of time may have been passed, at most so many. An attempt is overdue
    /// once its worker has been silent for `grace_ms` beyond the attempt's time.
    pub async fn review_tasks(&self, limit: u32, grace_ms: u64) -> Result<Reviewed, StoreError> {
        let mut reviewed = Reviewed::default();
        for due in self.claim_due(limit).await? {
            reviewed.tasks += 1;
            let id = due.id;
            // One task that cannot be looked at now is looked at later, and holds up no other.
            if let Err(error) = self.review_one(due, grace_ms, &mut reviewed).await {
                tracing::warn!(%error, task.id = %id, "the times of a task could not be looked at");
            }
        }
        Ok(reviewed)
    }

    async fn review_one(
        &self,
        mut due: Due,
        grace_ms: u64,
        reviewed: &mut Reviewed,
    ) -> Result<(), StoreError> {
        self.time(&mut due).await?;
        let review = due.template.review(&due.timing, grace_ms);
        self.conclude(due, review, reviewed).await
    }

    async fn claim_due(&self, limit: u32) -> Result<Vec<Due>, StoreError> {
        let rows = sqlx::query_file!("queries/lifecycle/claim_due.sql", i64::from(limit))
            .fetch_all(&self.hot)
            .await?;
        let mut due = Vec::with_capacity(rows.len());
        for row in rows {
            let id = TaskId::from_uuid(row.id);
            match self.template(TemplateId::from_uuid(row.template_id)).await {
                Ok(template) => due.push(Due {
                    id,
                    namespace: parse("namespace", &row.namespace)?,
                    template,
                    timing: TaskTiming {
                        age_ms: row.age_ms as u64,
                        is_stale: row.is_stale,
                        steps: Vec::new(),
                    },
                    check_at: row.check_at,
                    members: row.members as u64,
                    workers: HashMap::new(),
                }),
                // One template that this build cannot read must not hold up other tasks.
                Err(error) if !error.is_transient() => {
                    tracing::error!(%error, task.id = %id, "the times of a task cannot be looked at");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(due)
    }

    async fn time(&self, due: &mut Due) -> Result<(), StoreError> {
        let rows = sqlx::query_file!("queries/lifecycle/timings.sql", due.id.as_uuid())
            .fetch_all(&self.hot)
            .await?;
        for row in rows {
            due.timing.steps.push(StepTiming {
                id: StepId::from_uuid(row.id),
                name: row.name,
                template_step: row.template_step,
                kind: parse("step kind", &row.kind)?,
                attempt: row.attempt as u32,
                phase: match row.state.as_str() {
                    "pending" => StepPhase::Pending,
                    "waiting_for_retry" => StepPhase::WaitingForRetry,
                    _ => StepPhase::InProcess { silent: row.silent },
                },
                since_ms: row.since_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0),
            });
            due.workers.extend(row.lease_worker.map(|worker| (StepId::from_uuid(row.id), worker)));
        }
        Ok(())
    }

    async fn conclude(
        &self,
        due: Due,
        review: Review,
        reviewed: &mut Reviewed,
    ) -> Result<(), StoreError> {
        let action = due.template.lifecycle.action;
        if let Some(failure) = review.stale.as_ref().filter(|_| action != StalenessAction::None) {
            let dead_letter = action == StalenessAction::Dlq;
            let (failure, check_at) = (failure.clone(), due.check_at);
            let ending = Ending::Stale { failure, dead_letter, check_at };
            if let Cancelled::Now { namespace } = self.end_task(due.id, &ending).await? {
                let state = TaskState::Error;
                reviewed.ended.push(FinishedTask { id: due.id, namespace, state });
            }
            return Ok(());
        }
        for step in &review.overdue {
            let worker = due.workers.get(&step.id).copied().unwrap_or_default();
            let attempt = overdue_attempt(step, WorkerId::from_uuid(worker));
            reviewed.overdue.push((due.namespace.clone(), attempt));
        }
        let next_ms = review.next_ms.map(|next| next.max(due.members / MEMBERS_PER_MS));
        self.look_again(due.id, next_ms, review.stale.as_ref()).await
    }

    /// Plans the next look; a limit that was passed without consequence is not looked at again.
    async fn look_again(
        &self,
        task: TaskId,
        next_ms: Option<u64>,
        stale: Option<&StepFailure>,
    ) -> Result<(), StoreError> {
        if let Some(failure) = stale {
            tracing::warn!(task.id = %task, error = %failure.message, "a task is stale and goes on");
        }
        sqlx::query!(
            "update tasker.tasks
             set check_at = now() + make_interval(secs => $2),
                 overran_at = case when $3 then now() else overran_at end
             where id = $1 and state in ('pending', 'in_progress')",
            task.as_uuid(),
            next_ms.map(|ms| ms as f64 / 1000.0),
            stale.is_some(),
        )
        .execute(&self.hot)
        .await?;
        Ok(())
    }
}

fn overdue_attempt(step: &StepTiming, worker: WorkerId) -> FinishedAttempt {
    FinishedAttempt {
        step_id: step.id,
        attempt: step.attempt,
        dispatch_seq: 0,
        kind: step.kind,
        has_schema: false,
        has_events: true,
        worker,
        execution_ms: u32::try_from(step.since_ms).unwrap_or(u32::MAX),
        ending: Err(overdue(step)),
        takes_next: false,
    }
}
