//! Bodies of requests to the API, right and wrong.

mod measure;

use std::fmt::Write as _;

use measure::{Measured, measure};
use tasker_bad_input::{cases, content, folder, read_body, shown_all};
use tasker_messages::code;

fn check(file: &str, at_least: usize) {
    let cases = cases(&folder().join("api").join(file), 2);
    let mut wrong = String::new();
    for case in &cases {
        let (kind, body) = (&case.columns[0], content(&case.columns[1]));
        let Measured { result, .. } = measure(&case.place, || read_body(kind, &body));
        if let Ok(written) = &result {
            let again = read_body(kind, written.as_bytes());
            assert_eq!(again.as_ref(), Ok(written), "{}: read again", case.place);
        }
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
        for problem in &problems {
            assert!(code::ALL.contains(&problem.code.as_str()), "{}: {problem}", case.place);
            let text = problem.to_string();
            let plain = !text.contains(char::is_control) && text.len() < 1_000;
            assert!(plain, "{}: {problem:?}", case.place);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(cases.len() >= at_least, "only {} cases in {file}", cases.len());
}

#[test]
fn no_json() {
    check("json.txt", 130);
}

#[test]
fn submissions_of_wrong_types() {
    check("submission_types.txt", 170);
}

#[test]
fn other_bodies_of_wrong_types() {
    check("body_types.txt", 300);
}

#[test]
fn documents_without_sense() {
    check("more.txt", 90);
}
