//! The keys of one step.

use std::collections::HashSet;
use std::str::FromStr;

use serde_json::Value;
use tasker_messages::{FailureStrategy, Queue, SharedStep, StepKind, StepName, code, nearest};

use super::draft::{Dependency, Draft, DraftBatch, DraftName};
use super::problems::{Problems, shown};
use super::scalar::{Meaning, meaning};
use super::section::{Field, Section, json, text, wrong_type};
use super::yaml::{Node, join};
use super::{BatchConfig, Handler, read_event, read_retry, read_schema};
use crate::batching::Tolerated;

/// Longest name of a handler in bytes.
const MAX_CALLABLE: usize = 256;
/// Longest time that an attempt may be given.
const MAX_TIMEOUT_MS: u64 = 7 * 24 * 3600 * 1000;

/// Reads a step. `None` only if it is no mapping, which was reported.
pub(super) fn draft(path: String, node: Node, problems: &Problems) -> Option<Draft> {
    let mut section = Section::open(path, node, problems)?;
    let name = name(&mut section);
    let kind = kind(&mut section);
    let description = section.text("description").map(|(text, _)| text);
    let (dependencies, gaps, dependencies_field) = dependencies(&mut section);
    let handler = handler(&mut section);
    let (retry, max_in_process_ms) = read_retry::of_step(&mut section);
    let timeout_ms = timeout_ms(&mut section);
    let batch = batch(&mut section);
    section.text("system_dependency");
    let result_schema = read_schema::schema(&mut section, "result_schema");
    let events = read_event::events(&mut section);
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
        result_schema,
        events,
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
    let config = initialization(&mut handler);
    let method = name_of(&mut handler, "method");
    let method = method.unwrap_or_else(|| SharedStep::DEFAULT_METHOD.to_owned());
    let resolver = name_of(&mut handler, "resolver");
    handler.finish();
    Some(Handler { callable: callable?, method, resolver, queue: queue?, config })
}

/// What the handler sees as its configuration: an object, or `null` if there is none.
pub(super) fn initialization(handler: &mut Section<'_>) -> Value {
    let Some(field) = handler.take("initialization") else { return Value::Null };
    if meaning(&field.node) != Meaning::Mapping {
        wrong_type(handler.problems(), &field.path, &field.node, "a mapping of keys and values");
        return Value::Null;
    }
    json(handler.problems(), &field.path, &field.node)
}

/// A name that workers register.
fn name_of(handler: &mut Section<'_>, key: &'static str) -> Option<String> {
    let (name, field) = handler.text(key)?;
    if !is_registrable(&name) {
        let message = format!("must be a name: 1 to {MAX_CALLABLE} bytes without spaces");
        handler.report(code::INVALID_VALUE, &field.path, field.node.line, message);
    }
    Some(name)
}

fn is_registrable(name: &str) -> bool {
    (1..=MAX_CALLABLE).contains(&name.len())
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || is_unseen(c))
}

/// Characters that nobody sees, of which some turn the text around them: two names that look alike
/// would be two handlers. The most usual of the category Cf of Unicode.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn callable(handler: &mut Section<'_>) -> Option<String> {
    let (callable, field) = handler.required_text("callable")?;
    if !is_registrable(&callable) {
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

pub(super) fn timeout_ms(section: &mut Section<'_>) -> Option<u64> {
    section.duration_ms("timeout_seconds", 1_000, MAX_TIMEOUT_MS, "seconds")
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
    let percentage = section.number("percentage", 0.0..=100.0);
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
