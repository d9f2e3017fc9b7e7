//! Outcomes of batchable steps and decisions as handlers may write them, right and wrong: the files in
//! `corpus/outcomes`, each with what must come of it.
//!
//! `expect` is the code and the field of the error (`-` where the error is about the result as a
//! whole), or `ok` with how many members there will be or which steps are created.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;
use tasker_messages::{StepFailure, StepKind};
use tasker_workflow::{Template, batching, choose};

const MOST_MEMBERS: u32 = 5;

/// One file. The result is kept as it is written: keys that stand twice, numbers beyond any type.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case<'a> {
    step: String,
    expect: String,
    /// How many ranges the attempt has appended while it ran.
    appended: Option<u32>,
    #[serde(borrow)]
    result: &'a RawValue,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus/outcomes")
}

fn judge(template: &Template, case: &Case<'_>) -> Result<String, Box<StepFailure>> {
    let (_, step) = template.step(&case.step).expect("a step of the template");
    let result = case.result.get();
    if step.kind == StepKind::Decision {
        let names = choose(template, step, result)?;
        return Ok(names.iter().fold("ok".to_owned(), |text, name| format!("{text} {name}")));
    }
    let plan = batching::plan(template, step, result, case.appended, MOST_MEMBERS)?;
    Ok(format!("ok {}", plan.expected()))
}

/// The field is what the message begins with.
fn shown(failure: &StepFailure) -> String {
    let is_path = |field: &&str| {
        field.contains("_outcome") && !field.contains(|c: char| c.is_whitespace() || c == '`')
    };
    let field = failure.message.split(": ").next().filter(is_path);
    format!("{} {}", failure.code, field.unwrap_or("-"))
}

#[test]
fn each_outcome_is_what_its_file_says() {
    let source = fs::read(folder().join("template.yaml")).expect("the template");
    let template = Template::parse(&source).expect("a valid template");
    let (mut right, mut broken, mut wrong) = (0, 0, String::new());
    for file in fs::read_dir(folder()).expect("the corpus") {
        let path = file.expect("a file").path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("an outcome");
        let case: Case<'_> = serde_json::from_str(&text).expect("as described above");
        let (got, message) = match judge(&template, &case) {
            Ok(got) => {
                right += 1;
                (got, String::new())
            }
            Err(failure) => {
                broken += 1;
                assert!(!failure.retryable, "{}: the same would come again", path.display());
                let plain = !failure.message.contains(char::is_control);
                assert!(plain && failure.message.len() < 600, "{}: {failure:?}", path.display());
                (shown(&failure), failure.message)
            }
        };
        if got != case.expect {
            let expect = &case.expect;
            let _ = writeln!(
                wrong,
                "{}\n expect {expect}\n got    {got}\n says   {message}",
                path.display()
            );
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(broken >= 200 && right >= 20, "only {broken} broken and {right} right outcomes");
}
