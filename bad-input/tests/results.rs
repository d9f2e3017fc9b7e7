//! Results of handlers, right and wrong.

mod measure;

use std::fmt::Write as _;

use measure::measure;
use tasker_bad_input::{cases, content, folder, judge_result};
use tasker_messages::code;

#[test]
fn results() {
    let cases = cases(&folder().join("results.txt"), 3);
    let mut wrong = String::new();
    for case in &cases {
        let (step, schema) = (&case.columns[0], &case.columns[1]);
        let result = String::from_utf8(content(&case.columns[2])).expect("UTF-8");
        // A worker sends JSON; what is none never comes so far.
        let is_json = serde_json::from_str::<Box<serde_json::value::RawValue>>(&result).is_ok();
        assert!(is_json || case.expect.starts_with("RESULT_"), "{}: no JSON", case.place);
        let judged = measure(&case.place, || judge_result(step, schema, &result)).result;
        let got = judged.as_ref().err().map_or("ok", |failure| &failure.code);
        if got != case.expect {
            let says = judged.as_ref().err().map_or("", |failure| &failure.message);
            let (place, name, expect) = (&case.place, &case.name, &case.expect);
            let _ = writeln!(
                wrong,
                "{place} {name}\n expect {expect}\n got    {got}\n says   {says:.200}"
            );
        }
        if let Err(failure) = &judged {
            assert!(code::ALL.contains(&failure.code.as_str()), "{}: {failure:?}", case.place);
            assert!(!failure.retryable, "{}: the same would come again", case.place);
            let plain = !failure.message.contains(char::is_control);
            assert!(plain && failure.message.len() < 2_000, "{}: {failure:?}", case.place);
        } else {
            // Whoever depends on the step reads what was stored.
            let read = serde_json::from_str::<serde_json::Value>(&result);
            assert!(read.is_ok(), "{}: stored, and cannot be read", case.place);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(cases.len() >= 110, "only {} results", cases.len());
}
