//! The domain events of a step.

use std::collections::HashSet;

use tasker_messages::{EventName, code};

use super::problems::shown;
use super::read_schema;
use super::read_step::one_of;
use super::scalar::{Meaning, meaning};
use super::section::{Field, Section};
use super::yaml::Node;
use crate::event::{EventCondition, EventTemplate};

/// Most events of one step: each is a message for each of its attempts.
const MAX_EVENTS: usize = 16;

/// Reads `publishes_events`; what could not be read was reported.
pub(super) fn events(step: &mut Section<'_>) -> Vec<EventTemplate> {
    let Some(field) = step.take("publishes_events") else { return Vec::new() };
    let (path, line) = (field.path.clone(), field.key_line);
    let items = step.list(field).unwrap_or_default();
    if items.len() > MAX_EVENTS {
        let message = format!("{} events; the limit is {MAX_EVENTS}", items.len());
        step.report(code::TOO_LARGE, &path, line, message);
        return Vec::new();
    }
    let mut names = HashSet::new();
    items.into_iter().filter_map(|(path, node)| event(step, path, node, &mut names)).collect()
}

fn event(
    step: &Section<'_>,
    path: String,
    node: Node,
    names: &mut HashSet<EventName>,
) -> Option<EventTemplate> {
    let mut section = Section::open(path, node, step.problems())?;
    let name = name(&mut section, names);
    let condition = match section.take("condition") {
        Some(field) => condition(&section, &field),
        None => Some(EventCondition::Success),
    };
    let schema = read_schema::schema(&mut section, "schema");
    section.finish();
    Some(EventTemplate { name: name?, condition: condition?, schema })
}

fn name(section: &mut Section<'_>, names: &mut HashSet<EventName>) -> Option<EventName> {
    let (text, field) = section.required_text("name")?;
    let line = field.node.line;
    match EventName::new(&text) {
        Ok(name) if !names.insert(name.clone()) => {
            let message = format!("the step publishes {} twice; remove one", shown(&text));
            section.report(code::INVALID_VALUE, &field.path, line, message);
            None
        }
        Ok(name) => Some(name),
        Err(error) => {
            section.report(code::INVALID_NAME, &field.path, line, error.to_string());
            None
        }
    }
}

fn condition(section: &Section<'_>, field: &Field) -> Option<EventCondition> {
    // Another spelling: what is not retried has failed for good, whatever the reason.
    if matches!(meaning(&field.node), Meaning::Text("permanent_failure")) {
        return Some(EventCondition::Failure);
    }
    one_of(section, field, EventCondition::ALL.iter().map(|condition| condition.as_str()))
}
