//! The keys of one step.

use std::collections::HashSet;
use std::str::FromStr;

use serde_json::Value;
use tasker_messages::{FailureStrategy, Queue, StepKind, StepName, code, nearest};

use super::draft::{Dependency, Draft, DraftBatch, DraftName};
use super::problems::{Problems, shown};
use super::read_lifecycle::minutes;
use super::scalar::{Meaning, meaning};
use super::section::{Field, Section, json, text, wrong_type};
use super::yaml::{Node, join};
use super::{BatchConfig, Handler};
use crate::batching::Tolerated;
use crate::retry::{Backoff, RetryPolicy};

/// Longest name of a handler in bytes.
const MAX_CALLABLE: usize = 256;
/// Longest time that an attempt may be given.
const MAX_TIMEOUT_MS: u64 = 7 * 24 * 3600 * 1000;
/// Longest pause between two attempts that a template may ask for.
const MAX_BACKOFF_MS: u64 = 7 * 24 * 3600 * 1000;

/// Reads a step. `None` only if it is no mapping, which was reported.
pub(super) fn draft(path: String, node: Node, problems: &Problems) -> Option<Draft> {
    let mut section = Section::open(path, node, problems)?;
    let name = name(&mut section);
    let kind = kind(&mut section);
    let description = section.text("description").map(|(text, _)| text);
    let (dependencies, gaps, dependencies_field) = dependencies(&mut section);
    let handler = handler(&mut section);
    let retry = section.section("retry").map(retry).unwrap_or_default();
    let timeout_ms = timeout_ms(&mut section);
    let max_in_process_ms = lifecycle(&mut section);
    let batch = batch(&mut section);
    section.text("system_dependency");
    section.refuse(&["result_schema", "publishes_events"]);
    let (path, line) = (section.path.clone(), section.line);
    section.finish();
    Some(Draft {
        path,
        line,
        name,
        kind,
        description,
        dependencies,
        gaps,
        dependencies_field,
        handler,
        retry,
        timeout_ms,
        max_in_process_ms,
        batch,
    })
}

fn name(section: &mut Section<'_>) -> Option<DraftName> {
    let (text, field) = section.required_text("name")?;
    let line = field.node.line;
    let valid = StepName::new(&text)
        .map_err(|e| section.report(code::INVALID_NAME, &field.path, line, e.to_string()))
        .ok();
    Some(DraftName { text, line, valid })
}

fn kind(section: &mut Section<'_>) -> Option<StepKind> {
    let Some(field) = section.take_either("type", "step_type") else {
        return Some(StepKind::Standard);
    };
    one_of(section, &field, StepKind::ALL.iter().map(|kind| kind.as_str()))
}

/// A value out of a closed set of names.
pub(super) fn one_of<T: FromStr>(
    section: &Section<'_>,
    field: &Field,
    names: impl Iterator<Item = &'static str> + Clone,
) -> Option<T> {
    let text = text(section.problems(), &field.path, &field.node)?;
    let value = text.parse().ok();
    if value.is_none() {
        let near = nearest(&text, names.clone())
            .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        let all = names.collect::<Vec<_>>().join(", ");
        let message = format!("must be one of {all}, not {}{near}", shown(&text));
        section.report(code::INVALID_VALUE, &field.path, field.node.line, message);
    }
    value
}

/// The dependencies, whether some of them could not be read, and where the list stands.
fn dependencies(section: &mut Section<'_>) -> (Vec<Dependency>, bool, (String, u32)) {
    let Some(field) = section.take_either("dependencies", "depends_on") else {
        return (Vec::new(), false, (join(&section.path, "dependencies"), section.line));
    };
    let place = (field.path.clone(), field.key_line);
    let Some(items) = section.list(field) else { return (Vec::new(), true, place) };
    let mut gaps = false;
    let mut dependencies: Vec<Dependency> = Vec::with_capacity(items.len());
    let mut seen = HashSet::new();
    for (path, node) in items {
        let Some(text) = text(section.problems(), &path, &node) else {
            gaps = true;
            continue;
        };
        if !seen.insert(text.clone()) {
            let message = format!("{} is listed twice; remove one", shown(&text));
            section.report(code::INVALID_VALUE, &path, node.line, message);
            continue;
        }
        dependencies.push(Dependency { path, line: node.line, text });
    }
    (dependencies, gaps, place)
}

fn handler(section: &mut Section<'_>) -> Option<Handler> {
    let Some(field) = section.take("handler") else {
        section.missing("handler");
        return None;
    };
    let mut handler = Section::open(field.path, field.node, section.problems())?;
    let callable = callable(&mut handler);
    let queue = queue(&mut handler);
    let config = match handler.take("initialization") {
        Some(field) if meaning(&field.node) != Meaning::Mapping => {
            wrong_type(
                handler.problems(),
                &field.path,
                &field.node,
                "a mapping of keys and values",
            );
            Value::Null
        }
        Some(field) => json(handler.problems(), &field.path, &field.node),
        None => Value::Null,
    };
    if let Some((method, field)) = handler.text("method")
        && method != "call"
    {
        handler.not_yet(&field, "a `method` other than `call`");
    }
    handler.refuse(&["resolver"]);
    handler.finish();
    Some(Handler { callable: callable?, queue: queue?, config })
}

fn callable(handler: &mut Section<'_>) -> Option<String> {
    let (callable, field) = handler.required_text("callable")?;
    let valid = (1..=MAX_CALLABLE).contains(&callable.len())
        && !callable.contains(|c: char| c.is_whitespace() || c.is_control());
    if !valid {
        let message =
            format!("must be the name of a handler: 1 to {MAX_CALLABLE} bytes without spaces");
        handler.report(code::INVALID_VALUE, &field.path, field.node.line, message);
    }
    Some(callable)
}

fn queue(handler: &mut Section<'_>) -> Option<Queue> {
    let Some(field) = handler.take("queue") else { return Some(Queue::default()) };
    let text = text(handler.problems(), &field.path, &field.node)?;
    Queue::new(&text)
        .map_err(|e| {
            handler.report(code::INVALID_NAME, &field.path, field.node.line, e.to_string());
        })
        .ok()
}

fn retry(mut section: Section<'_>) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    policy.retryable = section.boolean("retryable").unwrap_or(policy.retryable);
    if let Some(attempts) = section.integer("max_attempts", 1..=100) {
        policy.max_attempts = attempts as u32;
    }
    if let Some(field) = section.take("backoff") {
        let backoff = one_of(&section, &field, Backoff::ALL.iter().map(|backoff| backoff.as_str()));
        policy.backoff = backoff.unwrap_or(policy.backoff);
    }
    let base = section.integer("backoff_base_ms", 0..=MAX_BACKOFF_MS);
    let max = section.integer("max_backoff_ms", 0..=MAX_BACKOFF_MS);
    policy.base_ms = base.unwrap_or(policy.base_ms);
    // A bound that was not written does not cut a base that was.
    policy.max_ms = max.unwrap_or(policy.max_ms.max(policy.base_ms));
    if let (Some(base), Some(max)) = (base, max)
        && base > max
    {
        let message = format!("`backoff_base_ms` {base} is above `max_backoff_ms` {max}");
        let path = join(&section.path, "max_backoff_ms");
        section.report(code::INVALID_VALUE, &path, section.line, message);
    }
    policy.jitter = section.boolean("jitter").unwrap_or(policy.jitter);
    section.finish();
    policy
}

fn timeout_ms(section: &mut Section<'_>) -> Option<u64> {
    section.duration_ms("timeout_seconds", 1_000, MAX_TIMEOUT_MS, "seconds")
}

/// The older spelling of limits of a step.
fn lifecycle(step: &mut Section<'_>) -> Option<u64> {
    let mut section = step.section("lifecycle")?;
    let limit = minutes(&mut section, "max_steps_in_process_minutes");
    section.refuse(&["max_retries", "backoff_multiplier"]);
    section.finish();
    limit
}

fn batch(step: &mut Section<'_>) -> Option<DraftBatch> {
    let field = step.take("batch_config")?;
    let (path, line) = (field.path.clone(), field.key_line);
    let mut section = Section::open(field.path, field.node, step.problems())?;
    let mut config = BatchConfig {
        batch_size: positive(&mut section, "batch_size"),
        max_workers: positive(&mut section, "max_workers"),
        parallelism: positive(&mut section, "parallelism"),
        checkpoint_interval: positive(&mut section, "checkpoint_interval").unwrap_or(0),
        cursor_field: section.text("cursor_field").map_or_else(String::new, |(text, _)| text),
        ..BatchConfig::default()
    };
    let mut worker_line = line;
    if let Some((text, field)) = section.text("worker_template") {
        worker_line = field.node.line;
        match StepName::new(&text) {
            Ok(name) => config.worker_template = Some(name),
            Err(e) => section.report(code::INVALID_NAME, &field.path, worker_line, e.to_string()),
        }
    }
    if let Some(strategy) = failure_strategy(&mut section) {
        config.failure_strategy = strategy;
    }
    config.tolerated = section.section("tolerated_failures").and_then(tolerated);
    section.finish();
    Some(DraftBatch { path, line, worker_line, config })
}

fn positive(section: &mut Section<'_>, key: &'static str) -> Option<u32> {
    let number = section.integer(key, 1..=u64::from(u32::MAX))?;
    u32::try_from(number).ok()
}

fn failure_strategy(section: &mut Section<'_>) -> Option<FailureStrategy> {
    let field = section.take("failure_strategy")?;
    // An older spelling.
    if matches!(meaning(&field.node), Meaning::Text("isolate_failed")) {
        return Some(FailureStrategy::Isolate);
    }
    one_of(section, &field, FailureStrategy::ALL.iter().map(|strategy| strategy.as_str()))
}

/// A count or a percentage, not both.
fn tolerated(mut section: Section<'_>) -> Option<Tolerated> {
    if !section.has("count") && !section.has("percentage") {
        let message = "needs `count` or `percentage`";
        section.report(code::MISSING_KEY, &section.path, section.line, message);
    }
    let count = section.integer("count", 0..=u64::from(u32::MAX));
    let percentage = percentage(&mut section);
    let (path, line) = (section.path.clone(), section.line);
    let tolerated = match (count, percentage) {
        (Some(_), Some(_)) => {
            let message = "`count` and `percentage` say the same thing; keep one of them";
            section.report(code::CONFLICTING_KEYS, &path, line, message);
            None
        }
        (Some(count), None) => u32::try_from(count).ok().map(Tolerated::Count),
        (None, percentage) => percentage.map(Tolerated::Percentage),
    };
    section.finish();
    tolerated
}

fn percentage(section: &mut Section<'_>) -> Option<f64> {
    let field = section.take("percentage")?;
    let number = match meaning(&field.node) {
        Meaning::Integer(number) => Some(number as f64),
        Meaning::Decimal(number) => Some(number),
        Meaning::Unrepresentable => None,
        _ => {
            wrong_type(section.problems(), &field.path, &field.node, "a number from 0 to 100");
            return None;
        }
    };
    let inside = number.filter(|number| (0.0..=100.0).contains(number));
    if inside.is_none() {
        let message = "must be 0 to 100";
        section.report(code::INVALID_VALUE, &field.path, field.node.line, message);
    }
    inside
}
