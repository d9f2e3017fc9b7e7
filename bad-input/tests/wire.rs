//! Messages between processes, right and wrong, whole and cut off.

mod measure;

use std::fmt::Write as _;

use measure::measure;
use tasker_bad_input::{Case, cases, content, folder, read_envelope, read_message, shown};
use tasker_messages::code;

fn messages(file: &str) -> Vec<Case> {
    cases(&folder().join("wire").join(file), 2)
}

fn check(file: &str, at_least: usize) {
    let cases = messages(file);
    let mut wrong = String::new();
    for case in &cases {
        let (kind, payload) = (&case.columns[0], content(&case.columns[1]));
        let read = measure(&case.place, || read_message(kind, &payload)).result;
        if let Ok(written) = &read {
            let again = read_message(kind, written.as_bytes());
            assert_eq!(again.as_ref(), Ok(written), "{}: read again", case.place);
        }
        let got = read.as_ref().err().map_or("ok".to_owned(), shown);
        if let Err(problem) = &read {
            assert!(code::ALL.contains(&problem.code.as_str()), "{}: {problem}", case.place);
            let text = problem.to_string();
            let plain = !text.contains(char::is_control) && text.len() < 1_000;
            assert!(plain, "{}: {problem:?}", case.place);
        }
        if got != case.expect {
            let says = read.err().map_or_else(String::new, |problem| problem.message);
            let (place, name, expect) = (&case.place, &case.name, &case.expect);
            let _ = writeln!(
                wrong,
                "{place} {name}\n expect {expect}\n got    {got}\n says   {says:.200}"
            );
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(cases.len() >= at_least, "only {} cases in {file}", cases.len());
}

#[test]
fn fields_of_wrong_types() {
    check("types.txt", 350);
}

#[test]
fn messages_without_sense() {
    check("messages.txt", 100);
}

/// Every right message that is no recipe, cut off at each of its bytes, is refused as what it is.
#[test]
fn cut_off() {
    let right = [messages("types.txt"), messages("messages.txt")].concat();
    let right =
        right.iter().filter(|case| case.expect == "ok" && !case.columns[1].starts_with('@'));
    let mut cuts = 0;
    for case in right {
        let (kind, payload) = (&case.columns[0], content(&case.columns[1]));
        for at in 0..payload.len() {
            let problem = read_message(kind, &payload[..at]).expect_err("cut off");
            let is_told = [code::INVALID_SYNTAX, code::INVALID_ENCODING].contains(&&*problem.code);
            assert!(is_told, "{} cut off at byte {at}: {problem}", case.place);
        }
        cuts += payload.len();
    }
    assert!(cuts >= 10_000, "only {cuts} messages were cut off");
}

#[test]
fn envelopes() {
    let cases = messages("envelopes.txt");
    let text = |column: &str| String::from_utf8(content(column)).expect("UTF-8");
    for case in &cases {
        let version = Some(text(&case.columns[0])).filter(|version| version != "-");
        let subject = text(&case.columns[1]);
        let read = measure(&case.place, || read_envelope(version.as_deref(), &subject, None));
        let got = match read.result {
            Ok(envelope) => format!("{} {}", envelope.request.prefix(), envelope.namespace),
            Err(refusal) => refusal.code,
        };
        assert_eq!(got, case.expect, "{} {}", case.place, case.name);
    }
    assert!(cases.len() >= 50, "only {} envelopes", cases.len());
}
