//! Templates, right and wrong.

mod measure;

use std::fmt::Write as _;

use measure::{Measured, measure};
use tasker_bad_input::{cases, folder, shown_all, template};
use tasker_messages::{Problem, code};
use tasker_workflow::Template;

fn check(file: &str, at_least: usize) {
    let cases = cases(&folder().join("templates").join(file), 2);
    let mut wrong = String::new();
    for case in &cases {
        let source = template(case);
        let Measured { result, .. } = measure(&case.place, || Template::parse(&source));
        let (is_right, problems) = (result.is_ok(), result.err().unwrap_or_default());
        let got = if is_right { "ok".to_owned() } else { shown_all(&problems) };
        if got != case.expect {
            let says = problems.first().map_or("", |problem| &problem.message);
            let (place, name, expect) = (&case.place, &case.name, &case.expect);
            let _ = writeln!(
                wrong,
                "{place} {name}\n expect {expect}\n got    {got}\n says   {says:.200}"
            );
        }
        problems.iter().for_each(|problem| check_problem(&case.place, problem));
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(cases.len() >= at_least, "only {} cases in {file}", cases.len());
}

fn check_problem(place: &str, problem: &Problem) {
    assert!(code::ALL.contains(&problem.code.as_str()), "{place}: {problem}");
    let text = problem.to_string();
    let plain = !text.contains(char::is_control) && text.len() < 4_000;
    assert!(plain && problem.field.len() < 1_000, "{place}: {problem:?}");
}

#[test]
fn everything_is_right() {
    let source = std::fs::read(folder().join("templates/everything.yaml")).expect("a template");
    assert_eq!(Template::parse(&source).err(), None);
}

#[test]
fn bombs() {
    check("bombs.txt", 60);
}

#[test]
fn graphs() {
    check("graphs.txt", 60);
}

#[test]
fn types() {
    check("types.txt", 80);
}

#[test]
fn unicode() {
    check("unicode.txt", 60);
}

/// What a slip of the hand makes of a template: each line changed in some way, and the text cut off at
/// each byte. What must come of it is not noted; that it is told in time and with its line is.
#[test]
fn slips() {
    let source = std::fs::read_to_string(folder().join("templates/everything.yaml")).expect("read");
    let lines: Vec<&str> = source.lines().collect();
    let mut slips = 0;
    let mut check = |name: String, text: &[u8]| {
        let problems = measure(&name, || Template::parse(text)).result.err().unwrap_or_default();
        for problem in &problems {
            check_problem(&name, problem);
            // Only a document without anything has no line.
            assert!(
                problem.line.is_some() || problem.message.contains("empty"),
                "{name}: {problem}"
            );
        }
        slips += 1;
    };
    for (n, &line) in lines.iter().enumerate() {
        let with = |instead: &[String]| {
            let (before, after) = (lines[..n].iter(), lines[n + 1..].iter());
            let lines = before.map(|line| (*line).to_owned()).chain(instead.iter().cloned());
            lines.chain(after.map(|line| (*line).to_owned())).collect::<Vec<_>>().join("\n")
        };
        let (key, value) = line.split_once(':').unwrap_or((line, ""));
        let slipped = [
            ("left out", vec![]),
            ("twice", vec![line.to_owned(), line.to_owned()]),
            ("indented", vec![format!(" {line}")]),
            ("a tab", vec![format!("\t{}", line.trim_start())]),
            ("without its value", vec![format!("{key}:")]),
            ("a list", vec![format!("{key}: [{value}]")]),
            ("a quote", vec![format!("{line}\"")]),
            ("without its colon", vec![line.replacen(':', "", 1)]),
            ("misspelt", vec![line.replacen('e', "", 1)]),
        ];
        for (what, instead) in slipped {
            check(format!("line {} {what}", n + 1), with(&instead).as_bytes());
        }
    }
    for at in 0..source.len() {
        check(format!("cut off at byte {at}"), &source.as_bytes()[..at]);
    }
    assert!(slips >= 2_000, "only {slips} slips");
}
