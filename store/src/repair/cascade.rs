//! Taking back what a convergence has made of a failure that is repaired now.
//!
//! Convergences behind the failure, and all that is behind them, have rows only because something in
//! front of them had ended. Those rows are removed, and the rules of convergence make them anew, under
//! new ids, when it ends again: nothing of the generation before can reach the new one.

use std::collections::HashSet;

use tasker_messages::{Refusal, StepState, TaskId, code};
use tasker_workflow::{Template, undecided_steps};
use uuid::Uuid;

use super::targets::Target;
use super::{MAX_REPAIRED, RepairRequest, Stop, TaskRow};
use crate::StoreError;
use crate::convergence::read_states;
use crate::dead_letters::close_letters;
use crate::pool::Tx;

/// What is behind the convergences that have seen a failure.
#[derive(Default)]
struct Behind {
    steps: Vec<Uuid>,
    /// What they were, for the audit trail.
    notes: Vec<String>,
    batches: Vec<Uuid>,
}

/// Removes the convergences behind what is repaired, and all that is behind them, also from what is
/// repaired. Answers with how many steps that were, members among them; `None` if there were none.
pub(super) async fn take_back(
    tx: &mut Tx,
    task: &TaskRow,
    request: &RepairRequest,
    targets: &mut Vec<Target>,
) -> Result<Option<u32>, Stop> {
    let repaired: HashSet<&str> = targets.iter().map(|t| t.template_step.as_str()).collect();
    let repaired: Vec<&str> = repaired.into_iter().collect();
    let names = task.template.behind_joins(&repaired, &task.facts);
    let names: Vec<&str> = names.into_iter().collect();
    let Behind { steps, notes, batches } = find(tx, request.task, &names).await?;
    if steps.is_empty() {
        return Ok(None);
    }
    note(tx, task, request, &steps, &notes).await?;
    let mut all = steps;
    all.extend(members(tx, &batches).await?);
    close_letters(tx, &all).await?;
    sqlx::query_file!("queries/repair/take_back.sql", &all, &batches, request.task.as_uuid())
        .execute(&mut **tx)
        .await?;
    targets.retain(|target| !names.contains(&target.template_step.as_str()));
    Ok(Some(all.len() as u32))
}

/// Locks what is there under these names, and reads it in the next statement. What has not ended is
/// not taken from whoever works on it.
async fn find(tx: &mut Tx, task: TaskId, names: &[&str]) -> Result<Behind, Stop> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let ids = sqlx::query_scalar!(
        "select id from tasker.steps
         where task_id = $1 and batch_id is null and name = any($2::text[])
         order by id for update",
        task.as_uuid(),
        &names,
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut behind = Behind::default();
    let mut members = 0;
    for row in sqlx::query_file!("queries/repair/behind.sql", &ids).fetch_all(&mut **tx).await? {
        let state = row.outcome.as_deref().unwrap_or(&row.live_state);
        let runs = row.outcome.is_none() && state != StepState::Pending.as_str();
        let is_looked_at = row.outcome.is_some() && row.unsettled;
        if runs || is_looked_at || row.batch_settled == Some(false) {
            let message = format!(
                "`{}`, which is behind a convergence that has run, has not ended yet; wait until it \
                 has, then try again",
                row.name
            );
            return Err(Stop::Refused(Refusal::new(code::DESCENDANT_RUNS, message)));
        }
        behind.steps.push(row.id);
        behind.notes.push(format!("`{}` was {state}, attempt {}", row.name, row.attempt));
        behind.batches.extend(row.batch_id);
        members += row.members.unwrap_or(0) as usize;
    }
    if members > MAX_REPAIRED {
        let message = format!(
            "{members} members of batches behind it are more than the {MAX_REPAIRED} that are taken \
             back at a time; submit the task again"
        );
        return Err(Stop::Refused(Refusal::new(code::TOO_LARGE, message)));
    }
    Ok(behind)
}

/// The ids of members are those of the batch with the ordinal in the last eight hex digits.
async fn members(tx: &mut Tx, batches: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"select m.id as "id!" from unnest($1::uuid[]) as b(id)
           cross join lateral (
               select m.id from tasker.steps m
               where m.id between (left(b.id::text, 28) || '00000000')::uuid
                              and (left(b.id::text, 28) || 'ffffffff')::uuid
                 and m.batch_id = b.id
           ) m"#,
        batches
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(ids)
}

async fn note(
    tx: &mut Tx,
    task: &TaskRow,
    request: &RepairRequest,
    steps: &[Uuid],
    notes: &[String],
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into tasker.admin_actions
             (namespace, task_id, step_id, action, principal, reason)
         select $1, $2, s.id, 'take_back', $3, s.note || ': ' || $4
         from unnest($5::uuid[], $6::text[]) as s(id, note)",
        task.namespace.as_str(),
        request.task.as_uuid(),
        request.principal,
        request.reason,
        steps,
        notes,
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Sets the counters of the task to what its rows and its template say. What was taken back may have
/// been decisions, which had kept other steps from existing.
pub(super) async fn count_anew(
    tx: &mut Tx,
    task: TaskId,
    template: &Template,
) -> Result<(), StoreError> {
    let states = read_states(tx, &[task.as_uuid()], false).await?;
    let facts = states.get(&task.as_uuid()).map(|state| state.facts()).unwrap_or_default();
    let undecided = undecided_steps(template, &facts) as i32;
    sqlx::query_file!("queries/repair/recount.sql", task.as_uuid(), undecided)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
