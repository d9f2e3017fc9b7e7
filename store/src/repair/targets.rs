//! What a repair is about, and whether it may be.

use std::collections::HashMap;

use tasker_messages::{Refusal, StepId, StepKind, StepState, code};
use tasker_workflow::{RepairAction, RepairFacts, check_repair, check_repaired_task};
use uuid::Uuid;

use super::{MAX_REPAIRED, RepairRequest, RepairTarget, Stop, TaskRow};
use crate::StoreError;
use crate::pool::Tx;

/// A step that is to be repaired.
pub(super) struct Target {
    pub(super) id: Uuid,
    name: String,
    pub(super) kind: StepKind,
    pub(super) state: StepState,
    pub(super) attempt: u32,
    pub(super) unsettled: bool,
    pub(super) template_step: String,
    pub(super) batch: Option<TargetBatch>,
}

pub(super) struct TargetBatch {
    pub(super) id: Uuid,
    pub(super) failed: bool,
    pub(super) settled: bool,
    stopped: bool,
    published_upto: u32,
}

impl Target {
    /// Whether its batch has not come to it yet.
    pub(super) fn is_unpublished(&self) -> bool {
        let ordinal = StepId::from_uuid(self.id).ordinal();
        self.batch.as_ref().is_some_and(|batch| ordinal >= batch.published_upto)
    }
}

pub(super) async fn load(tx: &mut Tx, request: &RepairRequest) -> Result<Vec<Target>, Stop> {
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
pub(super) fn judge(
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
    let mut joined: HashMap<String, Option<&str>> = HashMap::new();
    for target in targets {
        let stopped = target.batch.as_ref().is_some_and(|batch| batch.stopped);
        // What was cancelled with its batch is retried with it.
        let with_batch = !alone && stopped && target.state == StepState::Cancelled;
        // Members have the same answer.
        let joined_by = *joined
            .entry(target.template_step.clone())
            .or_insert_with_key(|step| if request.cascade { None } else { task.joined_by(step) });
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
