//! Judges outcomes before they are stored: what cannot be stored, or makes no sense, becomes the
//! error of that one step.

use std::collections::HashMap;

use serde_json::Value;
use tasker_messages::json::{Limits, inspect};
use tasker_messages::{Namespace, Problem, Refusal, StepFailure, StepId, StepKind, code};
use tasker_store::{FinishedAttempt, StoreError};
use tasker_workflow::{batching, choose};

use super::node::Node;

/// Replaces results that cannot be stored and outcomes of batchable steps and decisions that make no
/// sense by errors of their steps.
///
/// # Errors
/// If what is needed for judging cannot be read now.
pub(crate) async fn judge(
    node: &Node,
    namespace: &Namespace,
    set: &mut [FinishedAttempt],
) -> Result<(), Refusal> {
    let limits = Limits::bytes(node.settings.outcomes.max_result_bytes);
    for attempt in set.iter_mut() {
        match &mut attempt.ending {
            Ok(result) => {
                if let Err(problem) = inspect(result, limits) {
                    attempt.ending = Err(refused_result(&problem));
                }
            }
            Err(failure) => bound_failure(failure, limits),
        }
    }
    let judged: Vec<(StepId, u32)> = set
        .iter()
        .filter(|a| is_judged(a.kind) && a.ending.is_ok())
        .map(|a| (a.step_id, a.attempt))
        .collect();
    if judged.is_empty() {
        return Ok(());
    }
    judge_structure(node, namespace, set, &judged).await.map_err(|error| {
        tracing::error!(%error, "outcomes of batchable steps and decisions could not be judged");
        Refusal::retry(code::UNAVAILABLE, "the database did not answer; report again")
    })
}

/// Whether an outcome of such a step decides about other steps.
fn is_judged(kind: StepKind) -> bool {
    matches!(kind, StepKind::Batchable | StepKind::Decision)
}

async fn judge_structure(
    node: &Node,
    namespace: &Namespace,
    set: &mut [FinishedAttempt],
    judged: &[(StepId, u32)],
) -> Result<(), StoreError> {
    let steps: HashMap<_, _> = node.store.find_judged(namespace, judged).await?;
    let appended: HashMap<StepId, u32> =
        node.store.count_appended(judged).await?.into_iter().collect();
    let most = node.settings.batches.max_members;
    for attempt in set.iter_mut().filter(|a| is_judged(a.kind)) {
        let Some((template, name)) = steps.get(&attempt.step_id) else { continue };
        let (Ok(result), Some((_, step))) = (&attempt.ending, template.step(name)) else {
            continue;
        };
        let pages = appended.get(&attempt.step_id).copied();
        let verdict = match step.kind {
            StepKind::Decision => choose(template, step, result).map(drop),
            _ => batching::plan(template, step, result, pages, most).map(drop),
        };
        if let Err(failure) = verdict {
            attempt.ending = Err(failure);
        }
    }
    Ok(())
}

fn refused_result(problem: &Problem) -> StepFailure {
    let code = if problem.code == code::TOO_LARGE {
        code::RESULT_TOO_LARGE
    } else {
        code::RESULT_NOT_STORABLE
    };
    failure(code, format!("the handler's result cannot be stored: {}", problem.message))
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
