//! Hostile names in every field that has one.

mod measure;

use std::fmt::Write as _;

use measure::{Measured, measure};
use serde_json::{Value, json};
use tasker_bad_input::{cases, folder, read_body};
use tasker_messages::subject::{Request, plan_namespace};
use tasker_messages::{Problem, TaskRequest, code};
use tasker_workflow::Template;

/// Where a name of some class stands: a kind of document and a field of it.
const FIELDS: [(usize, &str, &str); 26] = [
    (0, "task", "namespace"),
    (0, "purge", "namespace"),
    (0, "namespace", "queues"),
    (0, "template", "namespace_name: corpus"),
    (0, "template", "queue: heavy"),
    (1, "task", "name"),
    (1, "template", "name: everything"),
    (1, "template", "name: route"),
    (1, "template", "worker_template: process"),
    (1, "template", "production:"),
    (2, "template", "name: order.charged"),
    (3, "template", "callable: corpus.split"),
    (3, "template", "method: divide"),
    (3, "template", "resolver: table"),
    (4, "task", "idempotency_key"),
    (4, "task", "correlation_id"),
    (4, "task", "parent_correlation_id"),
    (4, "task", "initiator"),
    (4, "task", "source_system"),
    (4, "task", "reason"),
    (4, "task", "version"),
    (4, "task", "tags"),
    (4, "header", "idempotency key"),
    (0, "subject", "tasker.submit"),
    (0, "subject", "tasker.outcome"),
    (0, "subject", "tasker.plan"),
];

/// What is wrong with everything.yaml if it has the name in place of another.
fn template(everything: &str, field: &str, name: &str) -> Vec<Problem> {
    let (key, _) = field.split_once(':').unwrap_or_default();
    let written = match key {
        // A key of more than 1,024 characters needs its sign.
        "production" => format!("? {}\n  :", quoted(name)),
        key => format!("{key}: {}", quoted(name)),
    };
    let mut source = everything.replacen(field, &written, 1);
    if field == "name: route" {
        // It is awaited under its name.
        source = source.replacen("[route]", &format!("[{}]", quoted(name)), 1);
    }
    let mut problems = Template::parse(source.as_bytes()).err().unwrap_or_default();
    // A good name of a worker is not that of this one.
    problems.retain(|problem| problem.code != code::BATCH_STRUCTURE);
    problems
}

/// A text of JSON that is one of YAML, too: everything but ASCII is escaped.
fn quoted(name: &str) -> String {
    let mut quoted = String::new();
    for c in json!(name).to_string().chars() {
        if matches!(c, ' '..='~') {
            quoted.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _infallible = write!(quoted, "\\u{unit:04x}");
        }
    }
    quoted
}

/// What is wrong with a name in a field.
fn judge(everything: &str, kind: &str, field: &str, name: &str) -> Vec<Problem> {
    match kind {
        "template" => template(everything, field, name),
        "header" => TaskRequest::check_key(name).err().into_iter().collect(),
        "subject" => {
            let subject = format!("{field}.{name}");
            let found = match field {
                "tasker.plan" => plan_namespace(&format!("{subject}.queue")),
                field => Request::ALL
                    .iter()
                    .find(|request| request.prefix() == field)
                    .and_then(|request| request.namespace(&subject)),
            };
            // What stands behind a dot is not the namespace's.
            let meant = name.split('.').next().unwrap_or_default();
            assert!(found.as_ref().is_none_or(|found| found.as_str() == meant), "{subject:?}");
            let problem = || Problem::new(code::INVALID_NAME, "no namespace");
            found.map_or_else(|| vec![problem()], |_| Vec::new())
        }
        kind => {
            let mut document = match kind {
                "task" => json!({"name": "a", "namespace": "n", "context": {}}),
                _ => json!({"reason": "r"}),
            };
            document[field] = match field {
                "tags" => json!([name]),
                "queues" => json!({name: {}}),
                _ => Value::from(name),
            };
            let read = read_body(kind, document.to_string().as_bytes());
            assert!(read.as_ref().err().is_none_or(|problems| !problems.is_empty()), "{field}");
            read.err().unwrap_or_default()
        }
    }
}

/// The text of a column: JSON, or `@` with how often a text of JSON is repeated.
fn name(column: &str) -> String {
    let read = |text: &str| serde_json::from_str::<String>(text).expect("a text of JSON");
    match column.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
        Some((times, text)) => read(text).repeat(times.parse().expect("a number")),
        None => read(column),
    }
}

#[test]
fn names() {
    let everything = folder().join("templates/everything.yaml");
    let everything = std::fs::read_to_string(everything).expect("a template");
    let cases = cases(&folder().join("names.txt"), 5);
    let mut wrong = String::new();
    for case in &cases {
        let name = name(&case.columns[0]);
        let mut expect: Vec<&str> = case.columns[1..].iter().map(String::as_str).collect();
        expect.push(&case.expect);
        for (class, kind, field) in FIELDS {
            let place = format!("{} {} as {kind} {field}", case.place, case.name);
            let Measured { result, .. } =
                measure(&place, || judge(&everything, kind, field, &name));
            let got = result.first().map_or("ok", |problem| problem.code.as_str());
            let expect = match expect[class] {
                // A subject is no document, and its last token is all that is asked for.
                "NUL_CHARACTER" if kind == "subject" => code::INVALID_NAME,
                _ if kind == "subject" && got == "ok" => "ok",
                expect => expect,
            };
            if got != expect {
                let says = result.first().map_or("", |problem| &problem.message);
                let _ = writeln!(wrong, "{place}\n expect {expect}\n got    {got} {says:.200}");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(cases.len() >= 100, "only {} names", cases.len());
}
