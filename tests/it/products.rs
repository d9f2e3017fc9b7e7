//! Workload `products`: money to the cent, per batch and in total.

use serde_json::{Value, json};
use tasker_tests::{Api, Cluster, Task, assert_same, example, expected};

use crate::support::{SOON, ended_batch, no_op_batch, no_op_result, without};

/// Compared to the last digit.
const MONEY: [&str; 2] = ["total_inventory_value", "max_price"];

async fn run(api: &Api, path: &str) -> anyhow::Result<Task> {
    let context = json!({"csv_file_path": path, "analysis_mode": "inventory"});
    api.run("csv_processing", "csv_product_inventory_analyzer", context, SOON).await
}

fn cursor(batch: &Value) -> Value {
    json!({"batch_id": batch["batch_id"], "start_cursor": batch["start_cursor"],
        "end_cursor": batch["end_cursor"], "batch_size": 200})
}

#[tokio::test]
async fn figures_of_every_batch_and_of_all() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let path = example("products.csv");
    let expect = expected("products.expected.json")?;
    let batches = expect["batches"].as_array().expect("a list").as_slice();
    let task = run(&cluster.api()?, &path).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let names = [
        "aggregate_csv_results",
        "analyze_csv",
        "process_csv_batch_001",
        "process_csv_batch_002",
        "process_csv_batch_003",
        "process_csv_batch_004",
        "process_csv_batch_005",
    ];
    assert_eq!(task.step_names(), names);
    let analyzed = json!({
        "batch_processing_outcome": {
            "type": "create_batches", "worker_template_name": "process_csv_batch",
            "worker_count": 5, "total_items": 1000,
            "cursor_configs": batches.iter().map(cursor).collect::<Vec<_>>(),
        },
        "worker_count": 5, "total_rows": 1000, "csv_file_path": path,
    });
    assert_same(task.result("analyze_csv")?, &analyzed, &[]);
    for (name, batch) in names[2..].iter().zip(batches) {
        let step = task.step(name)?;
        assert_eq!((&step["type"], &step["state"]), (&json!("batch_worker"), &json!("complete")));
        assert_eq!(step["attempt"], 1, "{name}");
        let inputs = without(&step["inputs"], &["batch_metadata"]);
        assert_same(&inputs, &json!({"cursor": cursor(batch), "is_no_op": false}), &[]);
        let mut figures = without(batch, &["start_cursor", "end_cursor"]);
        figures["start_row"] = batch["start_cursor"].clone();
        figures["end_row"] = batch["end_cursor"].clone();
        assert_same(task.result(name)?, &figures, &MONEY);
    }
    assert_same(task.result("aggregate_csv_results")?, &expect["aggregate"], &MONEY);
    let batch = ended_batch("analyze_csv", "process_csv_batch", 5, 0);
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    Ok(())
}

#[tokio::test]
async fn inputs_say_what_the_template_says() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let task = run(&cluster.api()?, &example("products.csv")).await?;
    let expect = json!({"checkpoint_interval": 0, "cursor_field": "row",
        "failure_strategy": "continue_on_failure"});
    let worker = task.step("process_csv_batch_003")?;
    assert_same(&worker["inputs"]["batch_metadata"], &expect, &[]);
    Ok(())
}

#[tokio::test]
async fn no_rows_no_batches() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let path = example("header_only.csv");
    let task = run(&cluster.api()?, &path).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let names = ["aggregate_csv_results", "analyze_csv", "process_csv_batch_000"];
    assert_eq!(task.step_names(), names);
    let analyzed = json!({
        "batch_processing_outcome": {
            "type": "no_batches", "reason": "the file has a header and no rows",
        },
        "worker_count": 0, "total_rows": 0, "csv_file_path": path,
    });
    assert_same(task.result("analyze_csv")?, &analyzed, &[]);
    let placeholder = task.step("process_csv_batch_000")?;
    assert_eq!(placeholder["inputs"]["is_no_op"], true);
    assert_same(task.result("process_csv_batch_000")?, &no_op_result(), &[]);
    let aggregate = json!({
        "total_processed": 0, "total_inventory_value": 0.0, "category_counts": {},
        "max_price": null, "max_price_product": null, "overall_average_rating": null,
        "worker_count": 0,
    });
    assert_same(task.result("aggregate_csv_results")?, &aggregate, &MONEY);
    let batch = no_op_batch("analyze_csv", "process_csv_batch");
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    Ok(())
}

/// File, step that fails, its code, what its message holds, steps there are, code of the task.
type BrokenFile<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], &'a [&'a str], &'a str);

#[tokio::test]
async fn a_broken_file_ends_the_task_and_says_where() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let (api, scratch) = (cluster.api()?, cluster.scratch());
    let analyzer: &[&str] = &["analyze_csv"];
    let both: &[&str] = &["analyze_csv", "process_csv_batch_001"];
    let (missing, ragged, bad) =
        (example("none.csv"), example("ragged_row.csv"), example("bad_number.csv"));
    let empty = scratch.write("products-empty.csv", "")?;
    let no_price =
        scratch.write("products-column.csv", "title,category,rating,stock\na,b,1,2\n")?;
    let table: [BrokenFile; 6] = [
        (&missing, "analyze_csv", "FILE_NOT_FOUND", &["none.csv"], analyzer, "FILE_NOT_FOUND"),
        (
            &ragged,
            "analyze_csv",
            "CSV_MALFORMED",
            &["ragged_row.csv: row 7 (line 8)", "5 fields", "11"],
            analyzer,
            "CSV_MALFORMED",
        ),
        (
            &bad,
            "process_csv_batch_001",
            "CSV_BAD_VALUE",
            &["bad_number.csv: row 7 (line 8)", "price", "\"cheap\""],
            both,
            "BATCH_ALL_FAILED",
        ),
        (
            &empty,
            "analyze_csv",
            "CSV_MALFORMED",
            &["products-empty.csv"],
            analyzer,
            "CSV_MALFORMED",
        ),
        (
            &no_price,
            "analyze_csv",
            "CSV_COLUMN_MISSING",
            &["products-column.csv", "\"price\""],
            analyzer,
            "CSV_COLUMN_MISSING",
        ),
        (
            "/etc/passwd",
            "analyze_csv",
            "PATH_OUTSIDE_DATA_ROOTS",
            &["/etc/passwd"],
            analyzer,
            "PATH_OUTSIDE_DATA_ROOTS",
        ),
    ];
    for case in table {
        let task = run(&api, case.0).await?;
        check_broken(&task, case)?;
    }
    Ok(())
}

fn check_broken(task: &Task, case: BrokenFile) -> anyhow::Result<()> {
    let (path, step, code, parts, steps, task_code) = case;
    // The aggregator waits behind the failure.
    assert_eq!(task.state(), "blocked_by_failures", "{path}: {}", task.view);
    assert_eq!(task.step_names(), steps, "{path}");
    assert_eq!(task.error_code(), task_code, "{path}: {}", task.view["error"]);
    assert!(!task.error_message().is_empty(), "{path}");
    let failed = task.step(step)?;
    assert_eq!((&failed["state"], &failed["attempt"]), (&json!("error"), &json!(1)), "{path}");
    let results = &failed["results"];
    assert_eq!((&results["success"], results.get("result")), (&json!(false), None), "{path}");
    let error = &results["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!(code), &json!(false)), "{path}");
    let message = error["message"].as_str().unwrap_or_default();
    for part in parts {
        assert!(message.contains(part), "{path}: {part:?} is not in {message:?}");
    }
    if task_code == code {
        assert_eq!(task.view["error"], *error, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn the_aggregate_names_ranges_that_failed() -> anyhow::Result<()> {
    let cluster = Cluster::shared().await?;
    let row = |n: u32| match n {
        250 => format!("p{n},tea,dear,4.5,2\n"),
        _ => format!("p{n},tea,1.50,4.5,2\n"),
    };
    let rows: String = (0..400).map(row).collect();
    let path = cluster
        .scratch()
        .write("products-half.csv", format!("title,category,price,rating,stock\n{rows}"))?;
    let task = run(&cluster.api()?, &path).await?;
    assert_eq!(task.state(), "complete", "{}", task.view);
    let mut aggregate = task.result("aggregate_csv_results")?.clone();
    let why = aggregate["failed_batches"]["process_csv_batch_002"].take();
    let expect = json!({
        "total_processed": 200, "total_inventory_value": 600.0, "category_counts": {"tea": 200},
        "max_price": 1.5, "max_price_product": "p0", "overall_average_rating": 4.5,
        "worker_count": 2, "failed_batches": {"process_csv_batch_002": null},
    });
    assert_same(&aggregate, &expect, &MONEY);
    let why = why.as_str().unwrap_or_default();
    assert!(why.contains("products-half.csv: row 251 (line 252)"), "{why}");
    let batch = ended_batch("analyze_csv", "process_csv_batch", 1, 1);
    assert_same(&without(task.batch()?, &["id"]), &batch, &[]);
    Ok(())
}
