//! The task's own keys.

use tasker_messages::{Namespace, StepName, code};

use super::draft::Draft;
use super::problems::{Problems, shown};
use super::scalar::{Meaning, meaning};
use super::section::{Section, json, text};
use super::version::is_version;
use super::yaml::Node;
use super::{
    StepTemplate, Template, environments, read_lifecycle, read_schema, read_step, structure,
};
use crate::graph::Graph;

/// Reads the whole document. `None` implies that a problem was reported.
pub(super) fn template(
    root: Node,
    environment: Option<&str>,
    problems: &Problems,
) -> Option<Template> {
    let mut section = Section::open(String::new(), root, problems)?;
    let name = name(&mut section);
    let namespace = namespace(&mut section);
    let version = version(&mut section);
    let description = section.text("description").map(|(text, _)| text);
    metadata(&mut section);
    task_handler(&mut section);
    let lifecycle = section.section("lifecycle").map(read_lifecycle::task).unwrap_or_default();
    let input_schema = read_schema::schema(&mut section, "input_schema");
    let drafts = steps(&mut section);
    let mut environments = environments::read(&mut section, drafts.as_deref().unwrap_or_default());
    section.finish();

    let mut drafts = structure::check(drafts?, problems);
    if !problems.is_empty() {
        return None;
    }
    if let Some(overrides) = environment.and_then(|name| environments.remove(name)) {
        environments::apply(&mut drafts, overrides);
    }
    let steps = drafts.into_iter().map(Draft::into_step).collect::<Option<Vec<StepTemplate>>>()?;
    let graph = Graph::new(&steps);
    Some(Template {
        namespace: namespace?,
        name: name?,
        version: version?,
        description,
        lifecycle,
        input_schema,
        steps,
        graph,
    })
}

fn name(section: &mut Section<'_>) -> Option<StepName> {
    let (text, field) = section.required_text("name")?;
    let name = StepName::new(&text);
    name.map_err(|e| {
        section.report(code::INVALID_NAME, &field.path, field.node.line, e.to_string())
    })
    .ok()
}

fn namespace(section: &mut Section<'_>) -> Option<Namespace> {
    let (text, field) = section.required_text("namespace_name")?;
    let name = Namespace::new(&text);
    name.map_err(|e| {
        section.report(code::INVALID_NAME, &field.path, field.node.line, e.to_string())
    })
    .ok()
}

fn version(section: &mut Section<'_>) -> Option<String> {
    const WHAT: &str = "must be MAJOR.MINOR.PATCH with an optional pre-release, such as \"1.0.0\"";
    let Some(field) = section.take("version") else {
        section.missing("version");
        return None;
    };
    let (line, path) = (field.node.line, &field.path);
    match meaning(&field.node) {
        Meaning::Text(text) if is_version(text) => Some(text.to_owned()),
        Meaning::Text(text) => {
            let message = format!("{WHAT}, not {}", shown(text));
            section.report(code::INVALID_VALUE, path, line, message);
            None
        }
        Meaning::Integer(_) | Meaning::Decimal(_) => {
            let message = format!("YAML reads this as a number; {WHAT}");
            section.report(code::WRONG_TYPE, path, line, message);
            None
        }
        other => {
            section.report(code::WRONG_TYPE, path, line, format!("{WHAT}, not {}", other.name()));
            None
        }
    }
}

/// Informs; is checked and not kept, because the source is.
fn metadata(section: &mut Section<'_>) {
    let Some(mut metadata) = section.section("metadata") else { return };
    metadata.text("author");
    metadata.text("documentation_url");
    if let Some(field) = metadata.take("tags") {
        for (path, tag) in metadata.list(field).unwrap_or_default() {
            text(metadata.problems(), &path, &tag);
        }
    }
    metadata.finish();
}

/// Accepted from existing templates; runs nothing.
fn task_handler(section: &mut Section<'_>) {
    let Some(mut handler) = section.section("task_handler") else { return };
    handler.text("callable");
    if let Some(field) = handler.take("initialization") {
        json(handler.problems(), &field.path, &field.node);
    }
    handler.finish();
}

fn steps(section: &mut Section<'_>) -> Option<Vec<Draft>> {
    let Some(field) = section.take("steps") else {
        section.missing("steps");
        return None;
    };
    let (path, line) = (field.path.clone(), field.node.line);
    let items = section.list(field)?;
    if items.is_empty() {
        section.report(code::INVALID_VALUE, &path, line, "there must be at least one step");
        return None;
    }
    if items.len() > Template::MAX_STEPS {
        let message = format!("{} steps; the limit is {}", items.len(), Template::MAX_STEPS);
        section.report(code::TOO_LARGE, &path, line, message);
        return None;
    }
    let draft = |(path, node)| read_step::draft(path, node, section.problems());
    // Every step is read, so that every problem is found, before a gap ends the reading.
    let drafts: Vec<Option<Draft>> = items.into_iter().map(draft).collect();
    drafts.into_iter().collect()
}
