//! Repair by hand: failed steps run again or are settled, and their task lives again. One transaction
//! under the locks that converging and cancelling take.

mod cascade;
mod settle;
mod targets;
mod write;

use std::sync::Arc;

use tasker_messages::{
    BatchId, Namespace, Refusal, Repaired, RepairedBatch, StepId, TaskId, TaskState, TemplateId,
    code,
};
use tasker_workflow::{RepairAction, TaskFacts, Template};

use self::cascade::take_back;
use self::settle::{completed, settle};
use self::targets::{judge, load};
use self::write::{note, recount, reopen, summary};
use crate::convergence::read_states;
use crate::pool::{Tx, commit, retry_conflicts};
use crate::{Applied, AttemptKey, Store, StoreError};

/// Most steps that one transaction repairs, and most that it takes back: it holds the locks of task
/// and batches meanwhile.
const MAX_REPAIRED: usize = 100_000;

/// What is to be repaired.
#[derive(Debug, Clone)]
pub enum RepairTarget {
    /// One step; what is to be done, and the result as JSON text to complete it with.
    Step(StepId, RepairAction, Option<Box<str>>),
    /// All members of a batch that failed or were cancelled with it.
    Batch(BatchId),
    /// Everything that failed.
    Task,
}

/// A repair, who asks for it, and why.
#[derive(Debug, Clone)]
pub struct RepairRequest {
    /// The task.
    pub task: TaskId,
    /// What of it.
    pub target: RepairTarget,
    /// Whether convergences that have run with the failure are taken back, with all that is behind
    /// them. Without this such a repair is refused.
    pub cascade: bool,
    /// For the audit trail.
    pub principal: String,
    /// For the audit trail.
    pub reason: String,
}

/// What a repair has done, and what follows from it.
#[derive(Debug, Default)]
pub struct RepairDone {
    /// For whoever asked.
    pub steps: Vec<StepId>,
    /// The same, of batches.
    pub batches: Vec<(BatchId, u32)>,
    /// How many steps behind them were taken back.
    pub taken_back: u32,
    /// The namespace of the task.
    pub namespace: Option<Namespace>,
    /// Steps that are to be published by themselves.
    pub ready: Vec<StepId>,
    /// What follows from steps that were settled.
    pub applied: Applied,
    /// The step that got a result, if it publishes events.
    pub completed: Option<AttemptKey>,
}

impl RepairDone {
    /// The answer.
    pub fn answer(&self, id: TaskId) -> Repaired {
        let batch = |&(id, members): &(BatchId, u32)| RepairedBatch { id, members };
        Repaired {
            id,
            steps: self.steps.clone(),
            batches: self.batches.iter().map(batch).collect(),
            taken_back: self.taken_back,
        }
    }
}

struct TaskRow {
    namespace: Namespace,
    state: TaskState,
    template: Arc<Template>,
    facts: TaskFacts,
}

impl TaskRow {
    /// A convergence that has run, or runs, with the failure of this step.
    fn joined_by(&self, step: &str) -> Option<&str> {
        let mut joins = self.template.joins_behind(step, &self.facts).into_iter();
        joins.find(|join| self.facts.steps.contains_key(*join))
    }
}

/// Why a repair did not happen.
enum Stop {
    Refused(Refusal),
    Store(StoreError),
}

impl<E: Into<StoreError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Store(error.into())
    }
}

impl Store {
    /// Repairs what failed, or says why not. Nothing happens, or all of it.
    pub async fn repair(
        &self,
        request: &RepairRequest,
    ) -> Result<Result<RepairDone, Refusal>, StoreError> {
        retry_conflicts(|| async {
            match self.repair_once(request).await {
                Ok(done) => Ok(Ok(done)),
                Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
                Err(Stop::Store(error)) => Err(error),
            }
        })
        .await
    }

    async fn repair_once(&self, request: &RepairRequest) -> Result<RepairDone, Stop> {
        let mut tx = self.hot.begin().await?;
        lock(&mut tx, request).await?;
        let task = self.repaired_task(&mut tx, request.task).await?;
        let mut targets = judge(&task, load(&mut tx, request).await?, request)?;
        let taken_back = match request.cascade {
            true => take_back(&mut tx, &task, request, &mut targets).await?,
            false => None,
        };
        reopen(&mut tx, &task, &targets).await?;
        recount(&mut tx, request.task, &targets).await?;
        if taken_back.is_some() {
            cascade::count_anew(&mut tx, request.task, &task.template).await?;
        }
        let mut done = RepairDone {
            namespace: Some(task.namespace.clone()),
            taken_back: taken_back.unwrap_or(0),
            ..summary(&targets)
        };
        if let RepairTarget::Step(_, action, result) = &request.target
            && *action != RepairAction::Reset
        {
            done.ready.clear();
            done.applied = settle(&mut tx, &task, &targets, *action, result.as_deref()).await?;
            done.completed = completed(&task, &targets, *action);
        }
        note(&mut tx, &task, request).await?;
        commit(tx).await?;
        Ok(done)
    }

    async fn repaired_task(&self, tx: &mut Tx, id: TaskId) -> Result<TaskRow, Stop> {
        let row = sqlx::query!(
            r#"select namespace, state::text as "state!", template_id,
                      stale_at is not null as "is_stale!"
               from tasker.tasks where id = $1 for no key update"#,
            id.as_uuid()
        )
        .fetch_optional(&mut **tx)
        .await?;
        let Some(row) = row else {
            let message = format!("there is no task {id}");
            return Err(Stop::Refused(Refusal::new(code::TASK_NOT_FOUND, message)));
        };
        if row.is_stale {
            let message = format!(
                "task {id} was ended by a limit of its lifecycle, and its steps with it; submit it \
                 again, or redrive its dead letter if it has one"
            );
            return Err(Stop::Refused(Refusal::new(code::TASK_ENDED, message)));
        }
        let states = read_states(tx, &[id.as_uuid()], true).await?;
        Ok(TaskRow {
            namespace: Namespace::new(&row.namespace)
                .map_err(|e| StoreError::stored("namespace", e))?,
            state: row.state.parse().map_err(|e| StoreError::stored("task state", e))?,
            template: self.template(TemplateId::from_uuid(row.template_id)).await?,
            facts: states.get(&id.as_uuid()).map(|state| state.facts()).unwrap_or_default(),
        })
    }
}

/// Locks all steps of the task that are not members and the one that is meant, then its batches.
/// Other failed members have ended: nobody else changes them.
async fn lock(tx: &mut Tx, request: &RepairRequest) -> Result<(), StoreError> {
    let step = match &request.target {
        RepairTarget::Step(id, ..) => Some(id.as_uuid()),
        RepairTarget::Batch(_) | RepairTarget::Task => None,
    };
    sqlx::query_scalar!(
        "select id from tasker.steps
         where id = any(array(select id from tasker.steps
                              where task_id = $1 and batch_id is null
                              union select $2::uuid where $2 is not null))
         order by id for no key update",
        request.task.as_uuid(),
        step,
    )
    .fetch_all(&mut **tx)
    .await?;
    sqlx::query_scalar!(
        "select id from tasker.batches where task_id = $1 order by id for no key update",
        request.task.as_uuid()
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(())
}
