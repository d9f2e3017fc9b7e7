//! Failed attempts that run again: which of them, and when.

use std::collections::HashMap;

use tasker_messages::{Namespace, StepFailure, StepId, TemplateId};
use tasker_workflow::{NextAttempt, next_attempt};
use uuid::Uuid;

use crate::pool::Tx;
use crate::{FinishedAttempt, Store, StoreError};

/// When a failed attempt runs again, and whether it costs a try of its budget.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    pub(crate) delay_ms: u64,
    charged: bool,
}

/// Locks the steps of a set: all of it, not only those that failed, since two transactions that
/// share steps must lock them in one order.
pub(crate) async fn lock_steps(
    tx: &mut Tx,
    namespace: &Namespace,
    set: &[FinishedAttempt],
) -> Result<(), StoreError> {
    let all: Vec<Uuid> = set.iter().map(|a| a.step_id.as_uuid()).collect();
    sqlx::query_file_scalar!("queries/outcomes/lock_steps.sql", &all, namespace.as_str())
        .fetch_all(&mut **tx)
        .await?;
    Ok(())
}

/// Decides which of the failed attempts run again. Their rows were locked by an earlier statement,
/// since whoever raises `attempt` must not pass an outcome that is being inserted.
pub(crate) async fn plan_retries(
    store: &Store,
    tx: &mut Tx,
    namespace: &Namespace,
    set: &[FinishedAttempt],
) -> Result<HashMap<StepId, Retry>, StoreError> {
    let mut retries = HashMap::new();
    if set.iter().all(|a| a.ending.is_ok()) {
        return Ok(retries);
    }
    let failed: HashMap<Uuid, &FinishedAttempt> =
        set.iter().filter(|a| a.ending.is_err()).map(|a| (a.step_id.as_uuid(), a)).collect();
    let ids: Vec<Uuid> = failed.keys().copied().collect();
    let rows = sqlx::query_file!("queries/outcomes/failed_steps.sql", &ids, namespace.as_str())
        .fetch_all(&mut **tx)
        .await?;
    for row in rows {
        let Some(attempt) = failed.get(&row.id) else { continue };
        let Err(failure) = &attempt.ending else { continue };
        if row.attempt != attempt.attempt as i32 || row.kind != attempt.kind.as_str() {
            continue;
        }
        let template = store.template(TemplateId::from_uuid(row.template_id)).await?;
        let Some((_, step)) = template.step(&row.template_step) else { continue };
        let seed = attempt.step_id.as_uuid().as_u64_pair().1 ^ u64::from(attempt.attempt);
        match next_attempt(&step.retry, failure, attempt.attempt, row.tries as u32, seed) {
            NextAttempt::Retry { delay_ms, charged } => {
                retries.insert(attempt.step_id, Retry { delay_ms, charged });
            }
            NextAttempt::Exhausted => {}
        }
    }
    Ok(retries)
}

/// Moves failed steps to `waiting_for_retry` and keeps their attempts; returns the delays of those
/// really moved.
pub(crate) async fn schedule_retries(
    tx: &mut Tx,
    namespace: &Namespace,
    set: &[FinishedAttempt],
    retries: &HashMap<StepId, Retry>,
) -> Result<HashMap<StepId, u64>, StoreError> {
    if retries.is_empty() {
        return Ok(HashMap::new());
    }
    let again: Vec<(&FinishedAttempt, &StepFailure, Retry)> = set
        .iter()
        .filter_map(|a| Some((a, a.ending.as_ref().err()?, *retries.get(&a.step_id)?)))
        .collect();
    let mut errors = Vec::with_capacity(again.len());
    for (_, failure, _) in &again {
        errors.push(serde_json::to_string(failure).map_err(|e| StoreError::stored("error", e))?);
    }
    let moved = sqlx::query_file_scalar!(
        "queries/outcomes/schedule_retries.sql",
        namespace.as_str(),
        &again.iter().map(|(a, ..)| a.step_id.as_uuid()).collect::<Vec<_>>(),
        &again.iter().map(|(a, ..)| a.attempt as i32).collect::<Vec<_>>(),
        &again.iter().map(|(.., retry)| retry.delay_ms as f64 / 1000.0).collect::<Vec<f64>>(),
        &errors,
        &again.iter().map(|(a, ..)| a.worker.as_uuid()).collect::<Vec<_>>(),
        &again.iter().map(|(a, ..)| a.execution_ms as i32).collect::<Vec<_>>(),
        &again.iter().map(|(.., retry)| i32::from(retry.charged)).collect::<Vec<_>>(),
    )
    .fetch_all(&mut **tx)
    .await?;
    let delay = |id: Uuid| {
        let id = StepId::from_uuid(id);
        retries.get(&id).map(|retry| (id, retry.delay_ms))
    };
    Ok(moved.into_iter().filter_map(delay).collect())
}
