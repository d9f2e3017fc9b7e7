use serde_json::{Value, json};
use tasker_sdk::StepError;
use tasker_sdk::testing::{BatchFlow, TestBatch, TestContext};

use crate::support::{Scratch, aggregate, data_dir, expected, flow, handler};

fn products(path: &str) -> BatchFlow {
    flow([
        ("analyze_csv", "products.analyze_csv"),
        ("process_csv_batch", "products.process_csv_batch"),
        ("aggregate_csv_results", "products.aggregate_csv_results"),
    ])
    .context(json!({"csv_file_path": path, "analysis_mode": "inventory"}))
    .config(json!({"batch_size": 200, "max_workers": 5, "worker_template": "process_csv_batch"}))
    .data_root(data_dir())
}

#[tokio::test]
async fn every_figure_is_exact() {
    let expect = expected("products.expected.json");
    let run = products("products.csv").run().await.expect("a good file");
    let outcome = json!({
        "type": "create_batches", "worker_template_name": "process_csv_batch", "worker_count": 5,
        "total_items": 1000, "cursor_configs": run.ranges,
    });
    let analyzer = json!({
        "batch_processing_outcome": outcome, "worker_count": 5, "total_rows": 1000,
        "csv_file_path": "products.csv",
    });
    assert_eq!(run.analyzer, analyzer);
    let batches = expect["batches"].as_array().expect("a list");
    assert_eq!(run.workers.len(), batches.len());
    for ((range, got), expect) in run.ranges.iter().zip(&run.workers).zip(batches) {
        assert_eq!(range.batch_id, expect["batch_id"]);
        let mut expect = expect.as_object().expect("an object").clone();
        for (from, to) in [("start_cursor", "start_row"), ("end_cursor", "end_row")] {
            let bound = expect.remove(from).expect("a bound");
            expect.insert(to.to_owned(), bound);
        }
        assert_eq!(got.as_ref().expect("a good range"), &Value::Object(expect));
    }
    assert_eq!(aggregate(run).expect("all figures"), expect["aggregate"]);
}

#[tokio::test]
async fn no_rows_no_batches() {
    let run = products("header_only.csv").run().await.expect("a header");
    assert_eq!(run.analyzer["batch_processing_outcome"]["type"], "no_batches");
    assert_eq!(
        (&run.analyzer["worker_count"], &run.analyzer["total_rows"]),
        (&json!(0), &json!(0))
    );
    let expect = json!({
        "total_processed": 0, "total_inventory_value": 0.0, "category_counts": {},
        "max_price": null, "max_price_product": null, "overall_average_rating": null,
        "worker_count": 0,
    });
    assert_eq!(aggregate(run).expect("nothing"), expect);
}

#[tokio::test]
async fn broken_files_are_named_with_their_rows() {
    let scratch = Scratch::new("products-broken");
    let head = "title,category,price,rating,stock\n";
    scratch.write("column.csv", "title,category,cost,rating,stock\na,b,1,2,3\n");
    scratch.write("empty.csv", "");
    scratch.write("latin.csv", [head.as_bytes(), b"Caf\xe9,b,1,2,3\n"].concat());
    scratch.write("stock.csv", format!("{head}a,b,1,2,3\r\n\"a\nb\",b,1,2,\n"));
    scratch.write("huge.csv", format!("{head}a,b,79228162514264337593543950335,1,9\n"));
    let crlf = "title,category,price,rating,stock\r\na,b,1,2,3\r\na,b,one,2,3\r\n";
    scratch.write("crlf.csv", crlf);
    // (file, code, what the message holds)
    let table: &[(&str, &str, &[&str])] = &[
        ("none.csv", "FILE_NOT_FOUND", &["none.csv"]),
        (".", "FILE_NOT_READABLE", &["not a file"]),
        ("../Cargo.toml", "PATH_OUTSIDE_DATA_ROOTS", &["../Cargo.toml"]),
        ("column.csv", "CSV_COLUMN_MISSING", &["column.csv", "\"price\"", "cost"]),
        ("empty.csv", "CSV_MALFORMED", &["empty.csv", "header"]),
        ("latin.csv", "CSV_BAD_VALUE", &["latin.csv", "row 1", "title", "UTF-8"]),
        ("stock.csv", "CSV_BAD_VALUE", &["stock.csv", "row 2", "stock"]),
        ("crlf.csv", "CSV_BAD_VALUE", &["crlf.csv", "row 2 (line 3)", "price \"one\""]),
        ("huge.csv", "NUMBER_OUT_OF_RANGE", &[]),
        ("ragged_row.csv", "CSV_MALFORMED", &["ragged_row.csv", "row 7 (line 8)", "5 fields"]),
        ("bad_number.csv", "CSV_BAD_VALUE", &["bad_number.csv", "row 7 (line 8)", "\"cheap\""]),
    ];
    for file in ["ragged_row.csv", "bad_number.csv"] {
        scratch.write(file, std::fs::read(data_dir().join(file)).expect("an example"));
    }
    for &(file, code, parts) in table {
        let error = match products(file).data_root(scratch.path()).run().await {
            Err(error) => error,
            Ok(run) => {
                assert!(run.aggregate.is_none(), "{file}: no worker should succeed");
                run.workers[0].clone().expect_err(file)
            }
        };
        assert_eq!((error.code(), error.is_retryable()), (code, false), "{file}: {error}");
        for part in parts {
            assert!(error.message().contains(part), "{file}: {part:?} in {error}");
        }
    }
}

#[tokio::test]
async fn the_first_of_equal_prices_wins_across_batches() {
    let scratch = Scratch::new("products-tie");
    let rows = ["a,x,5.00,1,1", "b,x,9.90,1,1", "c,y,9.9,4,1", "d,y,9.900,4,0"].join("\n");
    scratch.write("tie.csv", format!("title,category,price,rating,stock\n{rows}"));
    let config = json!({"batch_size": 3, "max_workers": 5, "worker_template": "process_csv_batch"});
    let run = products("tie.csv").data_root(scratch.path()).config(config).run().await;
    let got = aggregate(run.expect("a good file")).expect("figures");
    let expect = json!({
        "total_processed": 4, "total_inventory_value": 24.8, "category_counts": {"x": 2, "y": 2},
        "max_price": 9.9, "max_price_product": "b", "overall_average_rating": 2.5,
        "worker_count": 2,
    });
    assert_eq!(got, expect);
}

#[tokio::test]
async fn missing_ranges_are_named() {
    let batch = TestBatch::new("analyze_csv", "process_csv_batch")
        .succeeded(json!({
            "processed_count": 2, "total_inventory_value": 3.3, "category_counts": {"x": 2},
            "max_price": 1.1, "max_price_product": "a", "average_rating": 4.5, "batch_id": "001",
            "start_row": 0, "end_row": 2,
        }))
        .failed(StepError::permanent("CSV_BAD_VALUE", "row 3"));
    let ctx = TestContext::builder().batch(batch).build();
    let got = handler("products.aggregate_csv_results").call(ctx).await.expect("one range");
    assert_eq!(
        got.value()["failed_batches"],
        json!({"process_csv_batch_002": "row 3 [CSV_BAD_VALUE]"})
    );
    assert_eq!(
        (&got.value()["total_processed"], &got.value()["worker_count"]),
        (&json!(2), &json!(2))
    );
}

#[tokio::test]
async fn other_contexts_are_refused() {
    let table = [
        json!({}),
        json!({"csv_file_path": 5}),
        json!({"csv_file_path": "products.csv", "analysis_mode": "sales"}),
    ];
    for context in table {
        let error = products("").context(context.clone()).run().await.expect_err("refused");
        assert_eq!((error.code(), error.is_retryable()), ("VALIDATION_ERROR", false), "{context}");
    }
}
