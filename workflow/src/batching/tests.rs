use serde_json::{Value, json};
use tasker_messages::{CursorConfig, code};

use super::*;
use crate::testing::template;

const MOST: u32 = 1000;

#[expect(clippy::result_large_err, reason = "as the function under test")]
fn judge(result: &str, appended: Option<u32>) -> Result<BatchPlan, StepFailure> {
    let template = template(&[
        "split b",
        "work w split",
        "join j work",
        "other b",
        "toil w other",
        "work_x -",
    ]);
    let (_, step) = template.step("split").expect("a step");
    plan(&template, step, result, appended, MOST)
}

fn outcome(outcome: Value) -> String {
    json!({"rows": 5, "batch_processing_outcome": outcome}).to_string()
}

/// A list of ranges that is right, with changes merged into the outcome.
fn create(changes: Value) -> String {
    let mut base = json!({"type": "create_batches", "worker_template_name": "work",
        "worker_count": 2, "total_items": 20,
        "cursor_configs": [config("001", 0, 10), config("002", 10, 20)]});
    merge(&mut base, changes);
    outcome(base)
}

/// The same with another form in place of the list.
fn create_by(form: &str, value: Value, count: u32) -> String {
    create(json!({"cursor_configs": null, form: value, "worker_count": count}))
}

fn merge(base: &mut Value, changes: Value) {
    let (Value::Object(base), Value::Object(changes)) = (base, changes) else { return };
    for (key, value) in changes {
        if value.is_null() {
            base.remove(&key);
        } else {
            base.insert(key, value);
        }
    }
}

fn config(id: &str, start: impl Into<Value>, end: impl Into<Value>) -> Value {
    json!({"batch_id": id, "start_cursor": start.into(), "end_cursor": end.into(), "batch_size": 10})
}

fn lists(configs: &[Value]) -> String {
    create(json!({"worker_count": configs.len(), "cursor_configs": configs}))
}

#[track_caller]
fn refused(result: &str, appended: Option<u32>, expect: &str) {
    let failure = judge(result, appended).expect_err(result);
    assert_eq!(failure.code, expect, "{result}: {}", failure.message);
    assert!(!failure.retryable && failure.error_type == "batch_outcome", "{failure:?}");
    assert!(failure.message.contains("batch_processing_outcome"), "{}", failure.message);
}

#[test]
fn no_batches() {
    for result in [
        outcome(json!({"type": "no_batches"})),
        outcome(json!({"type": "no_batches", "reason": "no rows"})),
    ] {
        let plan = judge(&result, None).expect("right");
        assert!(plan.is_no_op() && plan.expected() == 1);
        let member = plan.member(0).expect("the placeholder");
        assert_eq!(member.batch_id, "000");
        let expect = r#"{"batch_id":"000","start_cursor":0,"end_cursor":0,"batch_size":0}"#;
        assert_eq!(member.cursor_json, expect);
        assert_eq!(plan.member(1), None);
    }
}

#[test]
fn lists_keep_what_was_written() {
    let plan = judge(&create(json!({})), None).expect("right");
    assert_eq!((plan.expected(), plan.is_no_op()), (2, false));
    assert_eq!(plan.member(1).map(|m| m.batch_id).as_deref(), Some("002"));
    assert_eq!(plan.member(2), None);

    // Longer than any number type, and with a zero that a number would lose.
    let cursor = r#"{ "batch_id": "a-1_B", "start_cursor": {"n": 123456789012345678901234567890},
        "end_cursor": [1.10, "x", null], "batch_size": 0 }"#;
    let result = format!(
        r#"{{"batch_processing_outcome": {{"type": "create_batches", "total_items": 0,
        "worker_template_name": "work", "worker_count": 1, "cursor_configs": [{cursor}]}}}}"#
    );
    let member = judge(&result, None).expect("right").member(0).expect("one");
    assert_eq!(member.cursor_json, cursor);
    serde_json::from_str::<CursorConfig>(&member.cursor_json).expect("a range");
}

#[test]
fn integer_ranges_in_any_order() {
    for configs in [
        vec![config("2", 10, 20), config("1", 0, 10)],
        vec![config("1", -10, 0), config("2", 5, 7)],
        vec![config("1", i64::MIN, 0), config("2", 0, u64::MAX)],
        // Not all are integers: nothing can be said about their order.
        vec![config("1", 0, 10), config("2", 5, 15), config("3", "a", "b")],
        vec![config("1", "b", "a"), config("2", 1.5, 0.5), config("3", Value::Null, Value::Null)],
    ] {
        assert!(judge(&lists(&configs), None).is_ok(), "{configs:?}");
    }
    for configs in [
        vec![config("1", 0, 0)],
        vec![config("1", 5, 4)],
        vec![config("1", 5, 4), config("2", "a", "b")],
        vec![config("1", 0, 10), config("2", 9, 20)],
        vec![config("1", 10, 20), config("2", 0, 11)],
        vec![config("1", 0, 100), config("2", 10, 20), config("3", 100, 110)],
        vec![config("1", 0, 10), config("2", 0, 10)],
        vec![config("1", u64::MAX - 1, u64::MAX), config("2", 0, u64::MAX)],
    ] {
        refused(&lists(&configs), None, code::BATCH_RANGE_INVALID);
    }
}

#[test]
fn identifiers() {
    let long = "x".repeat(65);
    for bad in ["", "a b", "a.b", "é", "a/b", "\u{1b}", &long, "x"] {
        // `x` makes the name of another step.
        refused(&lists(&[config(bad, 0, 1)]), None, code::BATCH_ID_INVALID);
    }
    refused(&lists(&[config("1", 0, 1), config("1", 1, 2)]), None, code::BATCH_ID_INVALID);
    let mut number = config("1", 0, 1);
    merge(&mut number, json!({"batch_id": 1}));
    refused(&lists(&[number]), None, code::BATCH_ID_INVALID);
    assert!(judge(&lists(&[config(&"x".repeat(64), 0, 1), config("X", 1, 2)]), None).is_ok());
}

#[test]
fn malformed_outcomes() {
    use code::BATCH_OUTCOME_INVALID as INVALID;
    let mut without_size = config("1", 0, 1);
    merge(&mut without_size, json!({"batch_size": null}));
    let mut extra = config("1", 0, 1);
    merge(&mut extra, json!({"batchsize": 1}));
    let mut huge = config("1", 0, 1);
    merge(&mut huge, json!({"batch_size": 1_u64 << 32}));
    for result in [
        "null",
        "[]",
        "5",
        "{}",
        r#"{"batch_processing_outcome":null}"#,
        r#"{"batch_processing_outcome":{"type":"no_batches"},"batch_processing_outcome":{}}"#,
        r#"{"batch_processing_outcome":{"type":"no_batches","type":"no_batches"}}"#,
        &outcome(json!("no_batches")),
        &outcome(json!([])),
        &outcome(json!({})),
        &outcome(json!({"type": 5})),
        &outcome(json!({"type": "create"})),
        &outcome(json!({"type": "no_batches", "reason": 5})),
        &outcome(json!({"type": "no_batches", "worker_count": 0})),
        &create(json!({"typ": 1})),
        &create(json!({"reason": "x"})),
        &create(json!({"worker_count": null})),
        &create(json!({"worker_count": "2"})),
        &create(json!({"worker_count": -2})),
        &create(json!({"worker_count": 2.0})),
        &create(json!({"worker_count": 1_u64 << 32})),
        &create(json!({"worker_template_name": 5})),
        &create(json!({"total_items": null})),
        &create(json!({"total_items": -1})),
        &create(json!({"total_items": 0.5})),
        &create(json!({"cursor_configs": null})),
        &create(json!({"cursor_configs": {}})),
        &create(json!({"cursor_configs": [], "worker_count": 0})),
        &create(json!({"cursor_range": {"start": 0, "end": 20, "batch_size": 10}})),
        &create(json!({"cursors_appended": 2})),
        &lists(&[json!(5)]),
        &lists(&[without_size]),
        &lists(&[extra]),
        &lists(&[huge]),
        &create_by("cursor_range", json!([0, 20]), 2),
        &create_by("cursor_range", json!({"start": 0, "end": 20}), 2),
        &create_by("cursor_range", json!({"start": -1, "end": 20, "batch_size": 10}), 2),
        &create_by("cursor_range", json!({"start": 0, "end": 20, "batch_size": 10, "n": 1}), 2),
        &create_by("cursors_appended", json!("2"), 2),
        &create_by("cursors_appended", json!(0), 0),
    ] {
        refused(result, None, INVALID);
    }
}

#[test]
fn older_shapes() {
    for old in [
        json!({"outcome_type": "no_batches"}),
        json!({"outcome_type": "NoBatches"}),
        json!({"type": "NoBatches"}),
        json!({"type": "CreateBatches", "worker_count": 1}),
        json!({"CreateBatches": {"worker_count": 1}}),
        json!("NoBatches"),
    ] {
        refused(&outcome(old.clone()), None, code::BATCH_OUTCOME_OLD_SHAPE);
        let failure = judge(&outcome(old), None).expect_err("the older shape");
        assert!(failure.message.contains("{\"type\":\"no_batches\"}"), "{}", failure.message);
    }
}

#[test]
fn worker_templates() {
    for name in
        [json!(null), json!("wrok"), json!("join"), json!("split"), json!("toil"), json!("")]
    {
        let result = create(json!({"worker_template_name": name}));
        refused(&result, None, code::BATCH_WORKER_TEMPLATE_UNKNOWN);
    }
}

#[test]
fn counts() {
    use code::{BATCH_COUNT_MISMATCH as MISMATCH, BATCH_TOO_LARGE as LARGE};
    refused(&create(json!({"worker_count": 3})), None, MISMATCH);
    refused(&create(json!({"worker_count": 0})), None, MISMATCH);
    let range = |end: u64| json!({"start": 0, "end": end, "batch_size": 10});
    refused(&create_by("cursor_range", range(21), 2), None, MISMATCH);
    refused(&create_by("cursor_range", range(10_001), 1001), None, LARGE);
    refused(&create_by("cursor_range", range(u64::MAX), 1), None, LARGE);
    assert!(judge(&create_by("cursor_range", range(10_000), 1000), None).is_ok());
    let many: Vec<Value> = (0..1001).map(|n| config(&format!("{n}"), n, n + 1)).collect();
    refused(&lists(&many), None, LARGE);
    assert!(judge(&lists(&many[1..]), None).is_ok());

    let appended = |says: u32, count: u32| create_by("cursors_appended", json!(says), count);
    assert_eq!(judge(&appended(7, 7), Some(7)).expect("right"), BatchPlan::Appended(7));
    refused(&appended(7, 7), None, MISMATCH);
    refused(&appended(7, 7), Some(6), MISMATCH);
    refused(&appended(7, 8), Some(7), MISMATCH);
    refused(&appended(1001, 1001), Some(1001), LARGE);
    // Pages that nobody concludes would be lost without a word.
    refused(&create(json!({})), Some(7), MISMATCH);
    refused(&outcome(json!({"type": "no_batches"})), Some(7), MISMATCH);
    assert!(judge(&create(json!({})), Some(0)).is_ok());
}

#[test]
fn ranges_are_the_pieces_of_the_library() {
    for start in [0_u64, 1, 7, 1 << 40] {
        for total in 0..60_u64 {
            for size in 0..12_u64 {
                let end = start + total;
                let range = json!({"start": start, "end": end, "batch_size": size});
                let count = total.checked_div(size).map_or(0, |_| total.div_ceil(size)) as u32;
                let result = create_by("cursor_range", range, count);
                if total == 0 || size == 0 {
                    refused(&result, None, code::BATCH_RANGE_INVALID);
                    continue;
                }
                let plan = judge(&result, None).expect("right");
                let expect = Pieces::by_size(start, end, size, u32::MAX).configs();
                assert_eq!(plan.expected() as usize, expect.len());
                let mut at = start;
                for (n, config) in expect.iter().enumerate() {
                    let member = plan.member(n as u32).expect("a member");
                    let got: CursorConfig =
                        serde_json::from_str(&member.cursor_json).expect("a range");
                    assert_eq!((&got, &member.batch_id), (config, &config.batch_id));
                    assert_eq!(got.start_cursor, json!(at));
                    at += u64::from(got.batch_size);
                    assert_eq!(got.end_cursor, json!(at));
                }
                assert_eq!((at, plan.member(plan.expected())), (end, None));
            }
        }
    }
}

#[test]
fn broken_ranges() {
    for (start, end, size) in
        [(5, 4, 1), (u64::MAX, 0, 1), (3, 3, 1), (0, 5, 0), (0, 1_u64 << 40, 1_u64 << 40)]
    {
        let range = json!({"start": start, "end": end, "batch_size": size});
        refused(&create_by("cursor_range", range, 1), None, code::BATCH_RANGE_INVALID);
    }
    // A size above the range is no problem as long as the piece can be counted.
    let range = json!({"start": u64::MAX - 5, "end": u64::MAX, "batch_size": u64::MAX});
    let plan = judge(&create_by("cursor_range", range, 1), None).expect("right");
    let member = plan.member(0).expect("one");
    assert!(member.cursor_json.ends_with("\"batch_size\":5}"), "{}", member.cursor_json);
}

#[test]
fn pages() {
    fn check(previous: Option<(&str, Option<i64>)>, page: &[Value], expect: &str) {
        let configs: Vec<CursorConfig> = page
            .iter()
            .map(|config| serde_json::from_value(config.clone()).expect("a range"))
            .collect();
        let got = check_page(previous, &configs).err();
        let shown = got.as_ref().map(|p| format!("{} {}", p.code, p.field)).unwrap_or_default();
        assert_eq!(shown, expect, "{previous:?} {page:?}: {got:?}");
    }
    check(None, &[], "");
    check(None, &[config("001", 0, 10), config("002", 10, 20)], "");
    check(Some(("999", Some(10))), &[config("1000", 10, 20)], "");
    check(Some(("999", Some(10))), &[config("1000", 11, 20)], "");
    check(Some(("002", None)), &[config("003", "a", "b")], "");
    check(Some(("002", Some(5))), &[config("003", "a", "b"), config("004", 0, 1)], "");
    check(Some(("002", None)), &[config("002", 0, 1)], "BATCH_ID_INVALID cursors[0].batch_id");
    check(Some(("1000", None)), &[config("999", 0, 1)], "BATCH_ID_INVALID cursors[0].batch_id");
    check(None, &[config("b", 0, 1), config("a", 1, 2)], "BATCH_ID_INVALID cursors[1].batch_id");
    check(None, &[config("a", 0, 1), config("a", 1, 2)], "BATCH_ID_INVALID cursors[1].batch_id");
    check(None, &[config("a b", 0, 1)], "BATCH_ID_INVALID cursors[0].batch_id");
    check(None, &[config("", 0, 1)], "BATCH_ID_INVALID cursors[0].batch_id");
    check(None, &[config("a", 1, 0)], "BATCH_RANGE_INVALID cursors[0].end_cursor");
    check(None, &[config("a", 1, 1)], "BATCH_RANGE_INVALID cursors[0].end_cursor");
    check(
        Some(("001", Some(10))),
        &[config("002", 9, 20)],
        "BATCH_RANGE_INVALID cursors[0].start_cursor",
    );
    check(
        None,
        &[config("1", 0, 10), config("2", 5, 20)],
        "BATCH_RANGE_INVALID cursors[1].start_cursor",
    );
}

#[test]
fn messages_name_the_place() {
    for (result, expect) in [
        (
            lists(&[config("1", 0, 1), config("1", 1, 2)]),
            "batch_processing_outcome.cursor_configs[1].batch_id: ",
        ),
        (create(json!({"worker_cuont": 1})), "did you mean `worker_count`?"),
        (create(json!({"worker_template_name": "toil"})), "that of `split` is `work`"),
        (
            create_by("cursor_range", json!({"start": 0, "end": 5, "batch_size": "x"}), 1),
            "batch_processing_outcome.cursor_range.batch_size: ",
        ),
    ] {
        let failure = judge(&result, None).expect_err("broken");
        assert!(failure.message.contains(expect), "{}", failure.message);
    }
}
