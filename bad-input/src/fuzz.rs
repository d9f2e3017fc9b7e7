//! The bodies of the fuzz targets, and where their first inputs come from.
//!
//! None may panic. What can be read and is written again reads as the same, and every code is one of the
//! closed list.

use serde_json::Value;
use tasker_messages::{Problem, code};
use tasker_workflow::Template;

use crate::{case, cases, content, folder, judge_result, read_body, read_envelope, read_message};

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of the program in `fuzz/`.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 6] = [
        Target { name: "template", run: template, seeds: template_seeds },
        Target { name: "api_body", run: api_body, seeds: api_seeds },
        Target { name: "work_item", run: work_item, seeds: || message_seeds("work_item") },
        Target { name: "outcome_result", run: outcome_result, seeds: result_seeds },
        Target { name: "claim", run: claim, seeds: || message_seeds("claim") },
        Target { name: "envelope", run: envelope, seeds: envelope_seeds },
    ];

    /// The one of this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn named(name: &str) -> Target {
        let found = Target::ALL.into_iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("no fuzz target `{name}`"))
    }

    /// The first inputs, out of the corpora; those that are large are left out.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        const MOST_BYTES: usize = 16 * 1024;
        (self.seeds)().into_iter().filter(|seed| seed.len() <= MOST_BYTES).collect()
    }
}

fn check_code(found: &str) {
    assert!(code::ALL.contains(&found), "the code {found:?} is not in the list");
}

fn check_problems(problems: &[Problem]) {
    assert!(!problems.is_empty(), "refused without a reason");
    for problem in problems {
        check_code(&problem.code);
        assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
    }
}

fn template(input: &[u8]) {
    match Template::parse(input) {
        Ok(template) => assert!(template.submission().steps.len() <= template.steps.len()),
        Err(problems) => check_problems(&problems),
    }
}

const BODIES: [&str; 8] =
    ["task", "task@mine", "repair", "retry", "purge", "namespace", "drain", "plan"];

/// The first byte says which body it is.
fn api_body(input: &[u8]) {
    let Some((&first, body)) = input.split_first() else { return };
    let kind = BODIES[usize::from(first) % BODIES.len()];
    match read_body(kind, body) {
        Ok(written) => assert_eq!(read_body(kind, written.as_bytes()).as_ref(), Ok(&written)),
        Err(problems) => check_problems(&problems),
    }
}

fn message(kind: &str, input: &[u8]) {
    match read_message(kind, input) {
        Ok(written) => assert_eq!(read_message(kind, written.as_bytes()).as_ref(), Ok(&written)),
        Err(problem) => check_problems(&[problem]),
    }
}

fn work_item(input: &[u8]) {
    message("work_item", input);
    message("run_analyzer", input);
}

/// The requests of a worker: all begin with the worker or the step.
fn claim(input: &[u8]) {
    for kind in ["claim", "release", "checkpoint", "cursors", "heartbeat"] {
        message(kind, input);
    }
}

/// A result is judged as that of every type of step, and as a part of a report.
fn outcome_result(input: &[u8]) {
    message("outcome_report", input);
    let Ok(result) = std::str::from_utf8(input) else { return };
    // A worker's result is JSON: its report could not be read otherwise.
    if serde_json::from_str::<&serde_json::value::RawValue>(result).is_err() {
        return;
    }
    for step in ["split", "route", "plain"] {
        match judge_result(step, "{type: object}", result) {
            Ok(()) => assert!(serde_json::from_str::<Value>(result).is_ok(), "stored for ever"),
            Err(failure) => check_code(&failure.code),
        }
    }
}

/// Three lines: the version, the subject, the idempotency key.
fn envelope(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.splitn(3, '\n');
    let (version, subject) = (lines.next(), lines.next().unwrap_or_default());
    match read_envelope(version, subject, lines.next()) {
        Ok(envelope) => {
            let subject = envelope.request.subject(&envelope.namespace);
            let again = read_envelope(version, &subject, None);
            assert_eq!(again.map_err(|refusal| refusal.code), Ok(envelope));
        }
        Err(refusal) => check_code(&refusal.code),
    }
}

fn template_seeds() -> Vec<Vec<u8>> {
    let files = ["graphs.txt", "types.txt", "unicode.txt"];
    let cases = files.iter().flat_map(|file| cases(&folder().join("templates").join(file), 2));
    cases.map(|case| case::template(&case)).collect()
}

fn api_seeds() -> Vec<Vec<u8>> {
    let files = ["more.txt", "json.txt"];
    let cases = files.iter().flat_map(|file| cases(&folder().join("api").join(file), 2));
    let seed = |case: crate::Case| {
        let kind = BODIES.iter().position(|kind| *kind == case.columns[0]).unwrap_or_default();
        [&[kind as u8], &content(&case.columns[1])[..]].concat()
    };
    cases.map(seed).collect()
}

fn message_seeds(target: &str) -> Vec<Vec<u8>> {
    let kinds: &[&str] = match target {
        "work_item" => &["work_item", "run_analyzer"],
        _ => &["claim", "release", "checkpoint", "cursors", "heartbeat"],
    };
    let files = ["messages.txt", "types.txt"];
    let cases = files.iter().flat_map(|file| cases(&folder().join("wire").join(file), 2));
    let meant = cases.filter(|case| kinds.contains(&case.columns[0].as_str()));
    meant.map(|case| content(&case.columns[1])).collect()
}

fn result_seeds() -> Vec<Vec<u8>> {
    let results = cases(&folder().join("results.txt"), 3);
    let reports = cases(&folder().join("wire/messages.txt"), 2);
    let reports = reports.into_iter().filter(|case| case.columns[0] == "outcome_report");
    let results = results.iter().map(|case| content(&case.columns[2]));
    results.chain(reports.map(|case| content(&case.columns[1]))).collect()
}

fn envelope_seeds() -> Vec<Vec<u8>> {
    let cases = cases(&folder().join("wire/envelopes.txt"), 2).into_iter();
    let line = |case: crate::Case| {
        [&content(&case.columns[0])[..], b"\n", &content(&case.columns[1]), b"\nkey"].concat()
    };
    cases.map(line).collect()
}
