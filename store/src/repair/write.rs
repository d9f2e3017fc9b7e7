//! What a repair changes in rows.

use std::collections::BTreeMap;

use tasker_messages::{BatchId, StepId, StepState, TaskId};
use tasker_workflow::RepairAction;
use uuid::Uuid;

use super::targets::{Target, TargetBatch};
use super::{RepairDone, RepairRequest, RepairTarget, TaskRow};
use crate::StoreError;
use crate::dead_letters::close_letters;
use crate::pool::Tx;

pub(super) async fn reopen(
    tx: &mut Tx,
    task: &TaskRow,
    targets: &[Target],
) -> Result<(), StoreError> {
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
pub(super) async fn recount(
    tx: &mut Tx,
    task: TaskId,
    targets: &[Target],
) -> Result<(), StoreError> {
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

pub(super) fn summary(targets: &[Target]) -> RepairDone {
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

pub(super) async fn note(
    tx: &mut Tx,
    task: &TaskRow,
    request: &RepairRequest,
) -> Result<(), StoreError> {
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
