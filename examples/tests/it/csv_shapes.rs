//! Files of every shape, cut into ranges of every size, against a plain reading in one go.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::csv_profile::profile;
use crate::support::{Scratch, aggregate, assert_close};

/// A profile made without any of the code under test but the CSV parser.
fn plain_profile(content: &[u8], worker_count: usize) -> Value {
    let mut reader = csv::Reader::from_reader(content);
    let header = reader.byte_headers().expect("a header").clone();
    let rows: Vec<_> = reader.byte_records().map(|row| row.expect("a row")).collect();
    let mut columns = BTreeMap::new();
    for (at, name) in header.iter().enumerate() {
        let fields = || rows.iter().map(|row| std::str::from_utf8(&row[at]).expect("UTF-8"));
        let missing = fields().filter(|field| matches!(*field, "" | "NA")).count();
        let numbers: Vec<(usize, f64)> = fields()
            .enumerate()
            .filter_map(|(row, field)| Some((row, field.parse().ok()?)))
            .collect();
        let mut column =
            json!({"count": rows.len() - missing, "missing": missing, "numeric": numbers.len()});
        if !numbers.is_empty() {
            let values = || numbers.iter().map(|&(_, value)| value);
            let (min, max) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
            let row_of = |wanted| numbers.iter().find(|&&(_, v)| v == wanted).map(|&(row, _)| row);
            let sum: f64 = values().sum();
            column["min"] = min.into();
            column["max"] = max.into();
            column["min_row"] = row_of(min).into();
            column["max_row"] = row_of(max).into();
            column["sum"] = sum.into();
            column["mean"] = (sum / numbers.len() as f64).into();
        }
        columns.insert(String::from_utf8_lossy(name).into_owned(), column);
    }
    json!({"rows": rows.len(), "columns": columns, "worker_count": worker_count})
}

fn rows(line_end: &str) -> Vec<String> {
    let row = |n: u32| match n % 5 {
        0 => format!("{n},\"two{line_end}lines, \"\"quoted\"\"\",{}{line_end}", f64::from(n) / 4.0),
        1 => format!("{n},NA,{line_end}"),
        2 => format!("{n},\"{line_end}{line_end}\",-{n}e-1{line_end}"),
        3 => format!("{n},東京;é,\"12\"{line_end}"),
        _ => format!("{n},\"\",\"a,b\"{line_end}"),
    };
    (0..23).map(row).collect()
}

#[tokio::test]
async fn every_shape_in_every_size() {
    let scratch = Scratch::new("profile-shapes");
    let plain = format!("id,text,value\n{}", rows("\n").concat());
    let windows = format!("id,text,value\r\n{}", rows("\r\n").concat());
    let files: &[(&str, String)] = &[
        ("plain", plain.clone()),
        ("windows", windows.clone()),
        ("old mac", windows.replace("\r\n", "\r")),
        ("no last line end", plain.trim_end().to_owned()),
        ("no last line end, windows", windows.trim_end().to_owned()),
        ("blank lines", format!("id,text,value\n\n\n{}\n\n\n", rows("\n").join("\n\n"))),
        (
            "blank lines, windows",
            format!("id,text,value\r\n\r\n{}\r\n\r\n", rows("\r\n").join("\r\n")),
        ),
        ("byte order mark", format!("\u{feff}{plain}")),
        ("quoted header", plain.replacen("text", "\"te\nxt, more\"", 1)),
        ("one column", "id\n1\n2\n3\nx\n".to_owned()),
    ];
    for (name, content) in files {
        scratch.write("file.csv", content);
        let total = plain_profile(content.as_bytes(), 0)["rows"].as_u64().expect("a number");
        for rows_per_batch in [1, 2, 3, 7, 22, 23, 24] {
            let context = json!({"csv_file_path": "file.csv", "rows_per_batch": rows_per_batch});
            let run = profile(context).data_root(scratch.path()).run().await.expect(name);
            let place = format!("{name} by {rows_per_batch}");
            assert_eq!(
                run.ranges.last().expect("rows").end_cursor["byte"],
                content.len(),
                "{place}"
            );
            let workers = total.div_ceil(rows_per_batch) as usize;
            let expect = plain_profile(content.as_bytes(), workers);
            assert_close(&aggregate(run).expect("a profile"), &expect, &place);
        }
    }
}

#[tokio::test]
async fn columns_of_one_name_are_told_apart() {
    let scratch = Scratch::new("profile-names");
    scratch.write("file.csv", "a,a,a#2,\n1,2,3,4\n");
    let run = profile(json!({"csv_file_path": "file.csv", "group_by": "a#3"}));
    let error = run.data_root(scratch.path()).run().await.expect_err("no such column");
    assert!(error.message().contains("a, a#2, a#2#2, "), "{error}");
}
