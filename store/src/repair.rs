//! Repair by hand: failed steps run again or are settled, and their task lives again. One transaction
//! under the locks that converging and cancelling take.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tasker_messages::{
    BatchId, Namespace, Refusal, Repaired, RepairedBatch, StepId, StepKind, StepState, TaskId,
    TaskState, TemplateId, code,
};
use tasker_workflow::{RepairAction, RepairFacts, Template, check_repair, check_repaired_task};
use uuid::Uuid;

use crate::dead_letters::close_letters;
use crate::pool::{Tx, commit, retry_conflicts};
use crate::settle::settle;
use crate::{Applied, Store, StoreError};

/// Most steps that one transaction repairs: it holds the locks of task and batches meanwhile.
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
    /// The namespace of the task.
    pub namespace: Option<Namespace>,
    /// Steps that are to be published by themselves.
    pub ready: Vec<StepId>,
    /// What follows from steps that were settled.
    pub applied: Applied,
}

impl RepairDone {
    /// The answer.
    pub fn answer(&self, id: TaskId) -> Repaired {
        let batch = |&(id, members): &(BatchId, u32)| RepairedBatch { id, members };
        Repaired {
            id,
            steps: self.steps.clone(),
            batches: self.batches.iter().map(batch).collect(),
        }
    }
}

/// A step that is to be repaired.
pub(crate) struct Target {
    pub(crate) id: Uuid,
    name: String,
    pub(crate) kind: StepKind,
    state: StepState,
    pub(crate) attempt: u32,
    unsettled: bool,
    pub(crate) template_step: String,
    batch: Option<TargetBatch>,
}

struct TargetBatch {
    id: Uuid,
    failed: bool,
    settled: bool,
    stopped: bool,
    published_upto: u32,
}

pub(crate) struct TaskRow {
    pub(crate) namespace: Namespace,
    state: TaskState,
    pub(crate) template: Arc<Template>,
    /// Convergences that exist.
    joins: HashSet<String>,
}

/// Why a repair did not happen.
pub(crate) enum Stop {
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
        let targets = judge(&task, load(&mut tx, request).await?, request)?;
        reopen(&mut tx, &task, &targets).await?;
        recount(&mut tx, request.task, &targets).await?;
        let mut done = RepairDone { namespace: Some(task.namespace.clone()), ..summary(&targets) };
        if let RepairTarget::Step(_, action, result) = &request.target
            && *action != RepairAction::Reset
        {
            done.ready.clear();
            done.applied = settle(&mut tx, &task, &targets, *action, result.as_deref()).await?;
        }
        note(&mut tx, &task, request).await?;
        commit(tx).await?;
        Ok(done)
    }

    async fn repaired_task(&self, tx: &mut Tx, id: TaskId) -> Result<TaskRow, Stop> {
        let row = sqlx::query!(
            r#"select namespace, state::text as "state!", template_id,
                      stale_at is not null as "is_stale!",
                      array(select name from tasker.steps s
                            where s.task_id = t.id and s.batch_id is null
                              and s.kind = 'deferred_convergence') as "joins!"
               from tasker.tasks t where id = $1 for no key update"#,
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
        Ok(TaskRow {
            namespace: Namespace::new(&row.namespace)
                .map_err(|e| StoreError::stored("namespace", e))?,
            state: row.state.parse().map_err(|e| StoreError::stored("task state", e))?,
            template: self.template(TemplateId::from_uuid(row.template_id)).await?,
            joins: row.joins.into_iter().collect(),
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

async fn load(tx: &mut Tx, request: &RepairRequest) -> Result<Vec<Target>, Stop> {
    let (step, batch) = match &request.target {
        RepairTarget::Step(id, ..) => (Some(id.as_uuid()), None),
        RepairTarget::Batch(id) => (None, Some(id.as_uuid())),
        RepairTarget::Task => (None, None),
    };
    if let Some(batch) = batch {
        let known = sqlx::query_scalar!(
            "select id from tasker.batches where id = $1 and task_id = $2",
            batch,
            request.task.as_uuid()
        );
        if known.fetch_optional(&mut **tx).await?.is_none() {
            let message = format!("there is no batch {batch} in task {}", request.task);
            return Err(Stop::Refused(Refusal::new(code::BATCH_NOT_FOUND, message)));
        }
    }
    let rows = sqlx::query_file!("queries/repair/targets.sql", request.task.as_uuid(), step, batch)
        .fetch_all(&mut **tx)
        .await?;
    if rows.len() > MAX_REPAIRED {
        let message = format!(
            "{} steps are more than the {MAX_REPAIRED} that are repaired at a time; submit the task \
             again",
            rows.len()
        );
        return Err(Stop::Refused(Refusal::new(code::TOO_LARGE, message)));
    }
    let mut targets = Vec::with_capacity(rows.len());
    for row in rows {
        let state = row.outcome.as_deref().unwrap_or(&row.live_state);
        targets.push(Target {
            id: row.id,
            name: row.name,
            kind: row.kind.parse().map_err(|e| StoreError::stored("step kind", e))?,
            state: state.parse().map_err(|e| StoreError::stored("step state", e))?,
            attempt: row.attempt as u32,
            unsettled: row.unsettled,
            template_step: row.template_step,
            batch: row.batch_id.map(|id| TargetBatch {
                id,
                failed: row.batch_state.as_deref() == Some("failed"),
                settled: row.batch_settled.unwrap_or(false),
                stopped: row.batch_stopped,
                published_upto: row.published_upto.unwrap_or(0) as u32,
            }),
        });
    }
    Ok(targets)
}

/// Asks the rules about each step. Of a whole task, what may not be retried is left as it is; of
/// anything smaller it is the answer.
fn judge(
    task: &TaskRow,
    targets: Vec<Target>,
    request: &RepairRequest,
) -> Result<Vec<Target>, Stop> {
    let action = match &request.target {
        RepairTarget::Step(_, action, _) => *action,
        RepairTarget::Batch(_) | RepairTarget::Task => RepairAction::Reset,
    };
    let alone = matches!(request.target, RepairTarget::Step(..));
    if alone && targets.is_empty() {
        let message = format!("there is no such step in task {}", request.task);
        return Err(Stop::Refused(Refusal::new(code::STEP_NOT_FOUND, message)));
    }
    // Before anything that could be waited for, or that says there is nothing to do.
    check_repaired_task(task.state).map_err(Stop::Refused)?;
    if targets.iter().filter_map(|t| t.batch.as_ref()).any(|b| b.stopped && !b.settled) {
        let message = "a batch of it is still being stopped; try again in a moment";
        return Err(Stop::Refused(Refusal::retry(code::UNAVAILABLE, message)));
    }
    let mut allowed = Vec::with_capacity(targets.len());
    let mut refused = None;
    for target in targets {
        let stopped = target.batch.as_ref().is_some_and(|batch| batch.stopped);
        // What was cancelled with its batch is retried with it.
        let with_batch = !alone && stopped && target.state == StepState::Cancelled;
        let joined_by = task
            .template
            .joins_behind(&target.template_step)
            .into_iter()
            .find(|join| task.joins.contains(*join));
        let facts = RepairFacts {
            task: task.state,
            name: &target.name,
            kind: target.kind,
            state: if with_batch { StepState::Error } else { target.state },
            in_stopped_batch: alone && stopped,
            joined_by,
        };
        match check_repair(action, &facts) {
            Ok(()) => allowed.push(target),
            Err(refusal) => drop(refused.get_or_insert(refusal)),
        }
    }
    match (refused, allowed.is_empty()) {
        (Some(refusal), true) => Err(Stop::Refused(refusal)),
        (Some(refusal), false) if !matches!(request.target, RepairTarget::Task) => {
            Err(Stop::Refused(refusal))
        }
        (None, true) => {
            let message = "nothing of it has failed; there is nothing to retry";
            Err(Stop::Refused(Refusal::new(code::NOTHING_TO_RETRY, message)))
        }
        _ => Ok(allowed),
    }
}

impl Target {
    /// Whether its batch has not come to it yet.
    fn is_unpublished(&self) -> bool {
        let ordinal = StepId::from_uuid(self.id).ordinal();
        self.batch.as_ref().is_some_and(|batch| ordinal >= batch.published_upto)
    }
}

async fn reopen(tx: &mut Tx, task: &TaskRow, targets: &[Target]) -> Result<(), StoreError> {
    let ids = |which: &dyn Fn(&Target) -> bool| -> Vec<Uuid> {
        targets.iter().filter(|t| which(t)).map(|t| t.id).collect()
    };
    let looked_at = |target: &Target| {
        target.batch.is_none() && task.template.is_looked_at(&target.template_step)
    };
    sqlx::query_file!(
        "queries/repair/reopen.sql",
        &ids(&|_| true),
        task.namespace.as_str(),
        &ids(&looked_at),
        &ids(&Target::is_unpublished),
    )
    .fetch_all(&mut **tx)
    .await?;
    close_letters(tx, &ids(&|target| target.batch.is_some())).await
}

/// Members by batch: how many failed, and how many there are.
fn by_batch(targets: &[Target]) -> BTreeMap<Uuid, (&TargetBatch, i32, i32)> {
    let mut batches = BTreeMap::new();
    for (batch, target) in targets.iter().filter_map(|t| Some((t.batch.as_ref()?, t))) {
        let (_, failed, all) = batches.entry(batch.id).or_insert((batch, 0, 0));
        *failed += i32::from(target.state == StepState::Error);
        *all += 1;
    }
    batches
}

/// Corrects the counters, and makes batches and task live again.
async fn recount(tx: &mut Tx, task: TaskId, targets: &[Target]) -> Result<(), StoreError> {
    let batches = by_batch(targets);
    sqlx::query!(
        "update tasker.batches b
         set remaining = b.remaining + d.members, failed = b.failed - d.failed, state = 'sealed',
             settled = false, converged_at = null, publisher = null, publisher_until = null
         from unnest($1::uuid[], $2::int[], $3::int[]) as d(id, failed, members)
         where b.id = d.id",
        &batches.keys().copied().collect::<Vec<_>>(),
        &batches.values().map(|(_, failed, _)| *failed).collect::<Vec<_>>(),
        &batches.values().map(|(_, _, members)| *members).collect::<Vec<_>>(),
    )
    .execute(&mut **tx)
    .await?;
    let steps = || targets.iter().filter(|target| target.batch.is_none());
    // A step whose end was not settled, and a batch that is open, hold their places still.
    let active = steps().filter(|step| !step.unsettled).count()
        + batches.values().filter(|(batch, ..)| batch.settled).count();
    let failed = steps().count()
        + batches.values().filter(|(batch, ..)| batch.settled && batch.failed).count();
    sqlx::query!(
        "update tasker.tasks t
         set active_steps = active_steps + $2, failed_steps = failed_steps - $3,
             state = 'in_progress', finished_at = null,
             check_at = case when check_at is not null then now() end,
             clock_from = now(), overran_at = null,
             error = case when exists (select from tasker.batches b where b.task_id = t.id
                                         and b.settled and b.state = 'failed')
                          then t.error end,
             step_error = (select o.error from tasker.steps s
                           join tasker.outcomes o on o.step_id = s.id
                           where s.task_id = t.id and s.batch_id is null and o.state = 'error'
                           order by o.created_at limit 1)
         where id = $1",
        task.as_uuid(),
        active as i32,
        failed as i32,
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn summary(targets: &[Target]) -> RepairDone {
    let step = |target: &Target| StepId::from_uuid(target.id);
    let ready = targets.iter().filter(|target| !target.is_unpublished()).map(step).collect();
    let alone = targets.iter().filter(|target| target.batch.is_none()).map(step).collect();
    let batches = by_batch(targets);
    let members = |(&id, &(_, _, members)): (&Uuid, &(&TargetBatch, i32, i32))| {
        (BatchId::from_uuid(id), members as u32)
    };
    RepairDone {
        steps: alone,
        batches: batches.iter().map(members).collect(),
        ready,
        ..RepairDone::default()
    }
}

async fn note(tx: &mut Tx, task: &TaskRow, request: &RepairRequest) -> Result<(), StoreError> {
    let (step, action) = match &request.target {
        RepairTarget::Step(id, RepairAction::Reset, _) => (Some(id.as_uuid()), "reset_for_retry"),
        RepairTarget::Step(id, RepairAction::Resolve, _) => {
            (Some(id.as_uuid()), "resolve_manually")
        }
        RepairTarget::Step(id, RepairAction::Complete, _) => {
            (Some(id.as_uuid()), "complete_manually")
        }
        RepairTarget::Batch(id) => (Some(id.as_uuid()), "retry_batch"),
        RepairTarget::Task => (None, "retry_task"),
    };
    sqlx::query!(
        "insert into tasker.admin_actions
             (namespace, task_id, step_id, action, principal, reason)
         values ($1, $2, $3, $4, $5, $6)",
        task.namespace.as_str(),
        request.task.as_uuid(),
        step,
        action,
        request.principal,
        request.reason,
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
