//! JSON Schemas inside a template.

use super::problems::Problems;
use super::scalar::{Meaning, meaning};
use super::section::{Section, json, wrong_type};
use super::yaml::{Content, Node, join};
use crate::schema::Schema;

/// Reads the schema under a key; each problem of it is at its own field and line.
pub(super) fn schema(section: &mut Section<'_>, key: &'static str) -> Option<Schema> {
    let field = section.take(key)?;
    let problems: &Problems = section.problems();
    if meaning(&field.node) != Meaning::Mapping {
        wrong_type(problems, &field.path, &field.node, "a JSON Schema: a mapping");
        return None;
    }
    let before = problems.count();
    let source = json(problems, &field.path, &field.node);
    if problems.count() > before {
        return None;
    }
    match Schema::compile(source, problems.patterns_left()) {
        Ok(schema) => {
            problems.count_patterns(schema.patterns());
            Some(schema)
        }
        Err(found) => {
            for problem in found {
                let (path, line) = locate(&field.node, &field.path, &problem.field);
                let line = if problem.field.is_empty() { field.key_line } else { line };
                section.report(&problem.code, &path, line, problem.message);
            }
            None
        }
    }
}

/// The field and line of a JSON pointer, as far as it leads.
fn locate(root: &Node, path: &str, pointer: &str) -> (String, u32) {
    let (mut node, mut path, mut line) = (root, path.to_owned(), root.line);
    for token in pointer.split('/').skip(1) {
        let key = token.replace("~1", "/").replace("~0", "~");
        let next = match &node.content {
            Content::Mapping(entries) => entries.iter().find(|entry| entry.key == key).map(|e| {
                path = join(&path, &key);
                (e.line, &e.value)
            }),
            Content::List(items) => {
                key.parse().ok().and_then(|n: usize| items.get(n)).map(|item| {
                    path = format!("{path}[{key}]");
                    (item.line, item)
                })
            }
            Content::Scalar { .. } => None,
        };
        let Some((at, inner)) = next else { break };
        (line, node) = (at, inner);
    }
    (path, line)
}
