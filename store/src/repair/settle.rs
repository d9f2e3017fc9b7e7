//! Ending a failed step by hand.

use tasker_messages::{Refusal, StepId, StepKind, Verdict, WorkerId, code};
use tasker_workflow::{RepairAction, batching, check_result as check_schema, choose};
use uuid::Uuid;

use super::targets::Target;
use super::{Stop, TaskRow};
use crate::apply::land;
use crate::pool::Tx;
use crate::{Applied, AttemptKey, FinishedAttempt};

/// Ends the step by hand: as if a worker had reported it, with what follows from that.
pub(super) async fn settle(
    tx: &mut Tx,
    task: &TaskRow,
    targets: &[Target],
    action: RepairAction,
    result: Option<&str>,
) -> Result<Applied, Stop> {
    let Some(target) = targets.first() else { return Ok(Applied::default()) };
    let result = result.unwrap_or("null");
    let resolved = action == RepairAction::Resolve;
    check_result(task, target, result, resolved)?;
    let attempt = FinishedAttempt {
        has_schema: false,
        has_events: false,
        step_id: StepId::from_uuid(target.id),
        attempt: target.attempt + 1,
        dispatch_seq: 0,
        kind: target.kind,
        worker: WorkerId::from_uuid(Uuid::nil()),
        execution_ms: 0,
        ending: Ok(result.into()),
        takes_next: false,
    };
    let applied = land(&mut *tx, &task.namespace, &[&attempt], 0).await?.applied;
    if applied.verdicts != [Verdict::Applied] {
        let message = "the step changed meanwhile; look at it and try again";
        return Err(Stop::Refused(Refusal::retry(code::UNAVAILABLE, message)));
    }
    // Rows of this very transaction: no worker made them, and one has no result.
    sqlx::query!(
        "update tasker.outcomes
         set worker = null,
             state = case when $2 then 'resolved_manually' else state end,
             result = case when $2 then null else result end
         where step_id = $1",
        target.id,
        resolved,
    )
    .execute(&mut **tx)
    .await?;
    Ok(applied)
}

/// The attempt by which a step was completed; what is only counted as done says nothing.
pub(super) fn completed(
    task: &TaskRow,
    targets: &[Target],
    action: RepairAction,
) -> Option<AttemptKey> {
    let target = targets.first().filter(|_| action == RepairAction::Complete)?;
    let (_, step) = task.template.step(&target.template_step)?;
    let key = AttemptKey {
        step_id: StepId::from_uuid(target.id),
        attempt: target.attempt + 1,
        worker: None,
    };
    (!step.events.is_empty()).then_some(key)
}

/// A result by hand must make as much sense as one of a handler. What is only resolved has none.
fn check_result(
    task: &TaskRow,
    target: &Target,
    result: &str,
    is_resolved: bool,
) -> Result<(), Stop> {
    let Some((_, step)) = task.template.step(&target.template_step) else { return Ok(()) };
    let judged = match target.kind {
        StepKind::Decision => choose(&task.template, step, result).map(drop),
        StepKind::Batchable => {
            batching::plan(&task.template, step, result, None, u32::MAX).map(drop)
        }
        _ => Ok(()),
    };
    let judged = match (judged, &step.result_schema) {
        (Ok(()), Some(schema)) if !is_resolved => check_schema(schema, result),
        (judged, _) => judged,
    };
    judged.map_err(|failure| Stop::Refused(Refusal::new(&failure.code, failure.message)))
}
