use serde_json::{Value, json};
use tasker_sdk::testing::{BatchFlow, TestContext};

use crate::support::{Scratch, aggregate, assert_close, data_dir, expected, flow, handler};

pub(crate) fn profile(context: Value) -> BatchFlow {
    flow([
        ("analyze_csv", "csv_profile.analyze_csv"),
        ("profile_csv_batch", "csv_profile.profile_batch"),
        ("merge_profiles", "csv_profile.merge_profiles"),
    ])
    .context(context)
    .config(json!({"worker_template": "profile_csv_batch", "rows_per_batch": 1000}))
    .data_root(data_dir())
}

fn weather(rows_per_batch: u32) -> BatchFlow {
    profile(json!({
        "csv_file_path": "weather.csv", "rows_per_batch": rows_per_batch, "group_by": "origin",
    }))
}

#[tokio::test]
async fn the_weather_of_a_year() {
    let run = weather(500).page_limit(20).run().await.expect("a good file");
    assert_eq!(run.analyzer["batch_processing_outcome"]["worker_count"], 53);
    assert_eq!(run.analyzer["rows"], 26_115);
    let (first, last) = (&run.ranges[0], &run.ranges[52]);
    assert_eq!((first.batch_id.as_str(), first.batch_size), ("001", 500));
    assert_eq!(first.start_cursor, json!({"row": 0, "byte": 105}));
    assert_eq!(first.end_cursor, run.ranges[1].start_cursor);
    assert_eq!((last.batch_id.as_str(), last.batch_size), ("053", 115));
    assert_eq!(last.end_cursor, json!({"row": 26_115, "byte": 2_294_215}));
    let got = aggregate(run).expect("a profile");
    assert_close(&got, &expected("weather.expected.json"), "weather");
}

#[tokio::test]
async fn many_ranges_are_appended_in_pages() {
    let context = json!({"csv_file_path": "weather.csv", "rows_per_batch": 5});
    let run = profile(context).run().await.expect("a good file");
    let outcome = &run.analyzer["batch_processing_outcome"];
    assert_eq!((&outcome["cursors_appended"], run.ranges.len()), (&json!(5_223), 5_223));
    assert!(outcome.get("cursor_configs").is_none());
    let mut expect = expected("weather.expected.json");
    expect["worker_count"] = 5_223.into();
    expect.as_object_mut().expect("an object").remove("groups");
    assert_close(&aggregate(run).expect("a profile"), &expect, "weather");
}

#[tokio::test]
async fn no_rows_still_have_columns() {
    let context = json!({"csv_file_path": "header_only.csv", "group_by": "brand"});
    let run = profile(context).run().await.expect("a header");
    assert_eq!(run.analyzer["batch_processing_outcome"]["type"], "no_batches");
    let got = aggregate(run).expect("nothing");
    assert_eq!(
        (&got["rows"], &got["worker_count"], &got["groups"]),
        (&json!(0), &json!(0), &json!({}))
    );
    assert_eq!(got["columns"].as_object().map(serde_json::Map::len), Some(11));
    assert_eq!(got["columns"]["price"], json!({"count": 0, "missing": 0, "numeric": 0}));
}

#[tokio::test]
async fn refused_jobs() {
    let scratch = Scratch::new("profile-refused");
    scratch.write("quote.csv", format!("a,b\n1,\"{}", "x".repeat(17 << 20)));
    scratch.write("binary.csv", b"a,b\n1,2\n\xff\xfe,\0\n");
    for file in ["ragged_row.csv", "weather.csv"] {
        scratch.write(file, std::fs::read(data_dir().join(file)).expect("an example"));
    }
    let table: &[(Value, &str, &str)] = &[
        (json!({}), "VALIDATION_ERROR", "csv_file_path"),
        (
            json!({"csv_file_path": "weather.csv", "rows_per_batch": 0}),
            "VALIDATION_ERROR",
            "at least 1",
        ),
        (json!({"csv_file_path": "weather.csv", "rows_per_batch": -1}), "VALIDATION_ERROR", "-1"),
        (
            json!({"csv_file_path": "weather.csv", "group_by": "planet"}),
            "CSV_COLUMN_MISSING",
            "\"planet\"",
        ),
        (json!({"csv_file_path": "none.csv"}), "FILE_NOT_FOUND", "none.csv"),
        (
            json!({"csv_file_path": "ragged_row.csv"}),
            "CSV_MALFORMED",
            "ragged_row.csv: row 7 (line 8)",
        ),
        (json!({"csv_file_path": "quote.csv"}), "CSV_MALFORMED", "quote.csv: row 1"),
    ];
    for (context, code, part) in table {
        let error = profile(context.clone()).data_root(scratch.path()).run().await;
        let error = error.expect_err("refused");
        assert_eq!((error.code(), error.is_retryable()), (*code, false), "{context}: {error}");
        assert!(error.message().contains(part), "{context}: {part:?} in {error}");
    }
    let binary = profile(json!({"csv_file_path": "binary.csv"})).data_root(scratch.path());
    let got = aggregate(binary.run().await.expect("any bytes")).expect("a profile");
    assert_eq!(got["columns"]["a"]["count"], 2);
}

#[tokio::test]
async fn too_many_groups_are_refused() {
    let scratch = Scratch::new("profile-groups");
    let rows: String = (0..10_001).map(|n| format!("{n}\n")).collect();
    scratch.write("ids.csv", format!("id\n{rows}"));
    for rows_per_batch in [20_000, 5_000] {
        let context =
            json!({"csv_file_path": "ids.csv", "rows_per_batch": rows_per_batch, "group_by": "id"});
        let run = profile(context).data_root(scratch.path()).run().await.expect("an outcome");
        let worker = run.workers[0].clone();
        let error = run.aggregate.unwrap_or(worker).expect_err("too many values");
        assert_eq!(error.code(), "TOO_MANY_GROUPS", "{rows_per_batch}");
    }
}

#[tokio::test]
async fn a_file_that_changes_between_analyzer_and_workers_is_noticed() {
    let scratch = Scratch::new("profile-changed");
    let rows = |field: &str| format!("id,text\n{}", format!("1,{field}\n").repeat(30));
    scratch.write("file.csv", rows("abc"));
    let context = json!({"csv_file_path": "file.csv", "rows_per_batch": 10});
    let flow = || profile(context.clone()).data_root(scratch.path());
    let ranges = flow().run().await.expect("a good file").ranges;
    for changed in [rows("abcd"), rows("ab"), rows("abc")[..100].to_owned()] {
        scratch.write("file.csv", &changed);
        let ctx = TestContext::builder()
            .input(context.clone())
            .data_root(scratch.path())
            .cursor(ranges[2].clone());
        let error = handler("csv_profile.profile_batch").call(ctx.build()).await;
        let error = error.expect_err("another file");
        assert!(["FILE_CHANGED", "CSV_MALFORMED"].contains(&error.code()), "{error}: {changed}");
    }
    // What was appended after the analyzer came by is not part of the job.
    scratch.write("file.csv", rows("abc") + "2,x\n");
    let ctx =
        TestContext::builder().input(context).data_root(scratch.path()).cursor(ranges[2].clone());
    let got = handler("csv_profile.profile_batch").call(ctx.build()).await.expect("the same rows");
    assert_eq!(got.value()["rows"], 10);
}

#[tokio::test]
async fn a_cancelled_analyzer_stops() {
    let test = TestContext::builder()
        .input(json!({"csv_file_path": "weather.csv"}))
        .config(json!({"worker_template": "w"}))
        .data_root(data_dir())
        .build_observed();
    test.cancel();
    let error = handler("csv_profile.analyze_csv").call(test.ctx()).await.expect_err("cancelled");
    assert_eq!(error.code(), "CANCELLED");
}
