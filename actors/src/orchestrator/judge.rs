//! Judges outcomes before they are stored: what cannot be stored, or makes no sense, becomes the
//! error of that one step.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use tasker_messages::json::{Limits, inspect};
use tasker_messages::{Namespace, Queue, Refusal, StepFailure, StepId, StepKind, code};
use tasker_store::{FinishedAttempt, JudgedStep, StoreError};
use tasker_workflow::{Schema, batching, check_result, choose, storable};

use super::node::Node;

/// Replaces results that cannot be stored or do not fit their schema, and outcomes of batchable steps
/// and decisions that make no sense, by errors of their steps. Nothing is read for any other step.
///
/// # Errors
/// If what is needed for judging cannot be read now.
pub(crate) async fn judge(
    node: &Node,
    namespace: &Namespace,
    set: &mut [FinishedAttempt],
) -> Result<(), Refusal> {
    let max_bytes = node.settings.outcomes.max_result_bytes;
    let limits = Limits::bytes(max_bytes);
    for attempt in set.iter_mut() {
        match &mut attempt.ending {
            Ok(result) => {
                if let Err(failure) = storable(result, max_bytes) {
                    attempt.ending = Err(failure);
                }
            }
            Err(failure) => {
                bound_failure(failure, limits);
                hurry_if_offered(node, failure);
            }
        }
    }
    let judged: Vec<(StepId, u32)> = set
        .iter()
        .filter(|a| (is_judged(a.kind) || a.has_schema) && a.ending.is_ok())
        .map(|a| (a.step_id, a.attempt))
        .collect();
    if judged.is_empty() {
        return Ok(());
    }
    let unread = |error: StoreError| {
        tracing::error!(%error, "outcomes could not be judged by their templates");
        Refusal::retry(code::UNAVAILABLE, "the database did not answer; report again")
    };
    let batchables = set.iter().filter(|a| a.kind == StepKind::Batchable && a.ending.is_ok());
    let batchables: Vec<(StepId, u32)> = batchables.map(|a| (a.step_id, a.attempt)).collect();
    let read = async {
        tokio::try_join!(
            node.store.find_judged(namespace, &judged),
            node.store.count_appended(&batchables)
        )
    };
    let (steps, appended) = read.await.map_err(unread)?;
    let appended = appended.into_iter().collect();
    judge_structure(set, &steps, &appended, node.settings.batches.max_members);
    judge_results(set, &steps).await
}

/// A step that met a worker without its handler comes back soon if another one is known to have it.
fn hurry_if_offered(node: &Node, failure: &mut StepFailure) {
    const SOON_MS: u64 = 250;
    if !failure.is_unserved() {
        return;
    }
    let wanted = |key: &str| failure.context[key].as_str();
    let queue = wanted("queue").and_then(|queue| Queue::new(queue).ok());
    let offered = queue.zip(wanted("callable"));
    let offered = offered.is_some_and(|(queue, callable)| node.offers.lists(&queue, callable));
    failure.retry_after_ms = offered.then_some(SOON_MS);
}

/// Whether an outcome of such a step decides about other steps.
fn is_judged(kind: StepKind) -> bool {
    matches!(kind, StepKind::Batchable | StepKind::Decision)
}

/// `appended` is how many cursors each step has appended, of which there may be `most`.
fn judge_structure(
    set: &mut [FinishedAttempt],
    steps: &HashMap<StepId, JudgedStep>,
    appended: &HashMap<StepId, u32>,
    most: u32,
) {
    for attempt in set.iter_mut().filter(|a| is_judged(a.kind)) {
        let Some(JudgedStep { template, name, .. }) = steps.get(&attempt.step_id) else {
            continue;
        };
        let (Ok(result), Some((_, step))) = (&attempt.ending, template.step(name)) else {
            continue;
        };
        let pages = appended.get(&attempt.step_id).copied();
        let verdict = match step.kind {
            StepKind::Decision => choose(template, step, result).map(drop),
            StepKind::Batchable => batching::plan(template, step, result, pages, most).map(drop),
            // The report names a kind that the row does not have: it is not applied.
            _ => Ok(()),
        };
        if let Err(failure) = verdict {
            attempt.ending = Err(failure);
        }
    }
}

/// Checks results against the schemas of their steps, away from the threads that everything else
/// waits for. A check that panics is the error of its step, too.
///
/// # Errors
/// If the process ends meanwhile: then nobody knows.
async fn judge_results(
    set: &mut [FinishedAttempt],
    steps: &HashMap<StepId, JudgedStep>,
) -> Result<(), Refusal> {
    let mut checks = Vec::new();
    for (n, attempt) in set.iter_mut().enumerate() {
        let Some(judged) = steps.get(&attempt.step_id).filter(|step| !step.is_no_op) else {
            continue;
        };
        let step = judged.template.step(&judged.name).map(|(_, step)| step);
        if let (Ok(result), Some(schema)) =
            (&mut attempt.ending, step.and_then(|step| step.result_schema.as_ref()))
        {
            checks.push((n, std::mem::take(result), schema.clone()));
        }
    }
    if checks.is_empty() {
        return Ok(());
    }
    let check = |(n, result, schema): (usize, Box<str>, Schema)| {
        // Nothing of the check is used after a panic.
        let checked = catch_unwind(AssertUnwindSafe(|| check_result(&schema, &result).err()));
        let ending = match checked {
            Ok(None) => Ok(result),
            Ok(Some(failure)) => Err(failure),
            Err(_) => Err(unchecked()),
        };
        (n, ending)
    };
    let checked = tokio::task::spawn_blocking(move || {
        checks.into_iter().map(check).collect::<Vec<(usize, Result<Box<str>, StepFailure>)>>()
    });
    let endings = checked
        .await
        .map_err(|_| Refusal::retry(code::UNAVAILABLE, "the node is stopping; report again"))?;
    for (n, ending) in endings {
        set[n].ending = ending;
    }
    Ok(())
}

fn unchecked() -> StepFailure {
    let message = "the result could not be checked against the step's result_schema";
    failure(code::RESULT_SCHEMA_VIOLATION, message.to_owned())
}

/// The error of a step whose result the database refuses.
pub(crate) fn not_storable(error: &StoreError) -> StepFailure {
    failure(code::RESULT_NOT_STORABLE, format!("the handler's result cannot be stored: {error}"))
}

fn failure(code: &str, message: String) -> StepFailure {
    StepFailure {
        code: code.to_owned(),
        message,
        retryable: false,
        error_type: "result".to_owned(),
        retry_after_ms: None,
        context: Value::Null,
    }
}

/// Longest text of an error that is kept.
const MAX_ERROR_TEXT: usize = 16 * 1024;

/// Cuts an error down to what can be stored; the error itself must never be lost.
fn bound_failure(failure: &mut StepFailure, limits: Limits) {
    for text in [&mut failure.message, &mut failure.code, &mut failure.error_type] {
        if text.contains('\0') {
            *text = text.replace('\0', "\u{fffd}");
        }
        if text.len() > MAX_ERROR_TEXT {
            let cut = (0..=MAX_ERROR_TEXT).rev().find(|&n| text.is_char_boundary(n)).unwrap_or(0);
            text.truncate(cut);
            text.push('…');
        }
    }
    if inspect(&failure.context.to_string(), limits).is_err() {
        failure.context = Value::String("the error's context could not be stored".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_cut_but_kept() {
        let mut long = failure("A\0B", "é".repeat(MAX_ERROR_TEXT));
        long.context = Value::String("x\0y".into());
        bound_failure(&mut long, Limits::bytes(1000));
        assert_eq!(long.code, "A\u{fffd}B");
        assert!(long.message.len() <= MAX_ERROR_TEXT + 3 && long.message.ends_with('…'));
        assert!(!long.context.to_string().contains("\\u0000"));
    }
}
