use serde::{Deserialize, Serialize};
use tasker_messages::code;
use tasker_sdk::StepError;

use super::sum::Sum;

/// What is known of one column, of some rows or of all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Column {
    /// Fields that are there.
    pub(super) count: u64,
    /// Fields that are empty or `NA`.
    pub(super) missing: u64,
    /// Fields that are finite numbers.
    pub(super) numeric: u64,
    /// Only if there is a number.
    #[serde(flatten)]
    pub(super) range: Option<Range>,
}

/// What is known of the numbers of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Range {
    min: f64,
    max: f64,
    /// The first row, 0-based, that holds the least number.
    min_row: u64,
    /// The first row, 0-based, that holds the greatest number.
    max_row: u64,
    #[serde(flatten)]
    sum: Sum,
}

/// One column in the result of the task.
#[derive(Debug, Serialize)]
pub(super) struct ColumnProfile {
    count: u64,
    missing: u64,
    numeric: u64,
    #[serde(flatten)]
    figures: Option<Figures>,
}

#[derive(Debug, Serialize)]
struct Figures {
    min: f64,
    max: f64,
    min_row: u64,
    max_row: u64,
    sum: f64,
    mean: f64,
}

impl Column {
    pub(super) fn add(&mut self, row: u64, field: &[u8]) {
        if field.is_empty() || field == b"NA" {
            self.missing += 1;
            return;
        }
        self.count += 1;
        if let Some(value) = parse_finite(field) {
            self.numeric += 1;
            let mut sum = Sum::default();
            sum.add(value);
            self.merge_range(Range { min: value, max: value, min_row: row, max_row: row, sum });
        }
    }

    /// Adds what is known of later rows.
    pub(super) fn merge(&mut self, later: Self) {
        self.count += later.count;
        self.missing += later.missing;
        self.numeric += later.numeric;
        if let Some(range) = later.range {
            self.merge_range(range);
        }
    }

    fn merge_range(&mut self, later: Range) {
        let Some(range) = &mut self.range else {
            self.range = Some(later);
            return;
        };
        // Of equal numbers the first one stays.
        if later.min < range.min {
            (range.min, range.min_row) = (later.min, later.min_row);
        }
        if later.max > range.max {
            (range.max, range.max_row) = (later.max, later.max_row);
        }
        range.sum.merge(later.sum);
    }

    /// Whether the sum is a number that JSON can carry.
    pub(super) fn check(&self, name: &str) -> Result<(), StepError> {
        match &self.range {
            Some(range) if !range.sum.value().is_finite() => {
                let message = format!("the sum of column {name:?} is larger than a float can hold");
                Err(StepError::permanent(code::NUMBER_OUT_OF_RANGE, message))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn profile(self, name: &str) -> Result<ColumnProfile, StepError> {
        self.check(name)?;
        let figures = self.range.map(|range| {
            let Range { min, max, min_row, max_row, sum } = range;
            let sum = sum.value();
            Figures { min, max, min_row, max_row, sum, mean: sum / self.numeric as f64 }
        });
        let Self { count, missing, numeric, .. } = self;
        Ok(ColumnProfile { count, missing, numeric, figures })
    }
}

fn parse_finite(field: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(field).ok()?;
    text.trim().parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(fields: &[&str], expect: &Value) {
        // Cut into ranges at every place, through the JSON that workers hand on.
        for cut in 0..=fields.len() {
            let mut parts = [Column::default(), Column::default()];
            for (row, field) in fields.iter().enumerate() {
                parts[usize::from(row >= cut)].add(row as u64, field.as_bytes());
            }
            let mut whole = Column::default();
            for part in parts {
                let text = serde_json::to_string(&part).expect("JSON");
                whole.merge(serde_json::from_str(&text).expect("its own shape"));
            }
            let got = serde_json::to_value(whole.profile("c").expect("finite")).expect("JSON");
            assert_eq!(&got, expect, "{fields:?} cut at {cut}");
        }
    }

    #[test]
    fn columns() {
        check(&[], &json!({"count": 0, "missing": 0, "numeric": 0}));
        check(&["", "NA", "x"], &json!({"count": 1, "missing": 2, "numeric": 0}));
        check(&["nan", "inf", "1e999", "na"], &json!({"count": 4, "missing": 0, "numeric": 0}));
        check(
            &["2", "x", "-1.5", "2.0", " -1.5 ", "NA", "1e0"],
            &json!({
                "count": 6, "missing": 1, "numeric": 5, "min": -1.5, "max": 2.0,
                "min_row": 2, "max_row": 0, "sum": 2.0, "mean": 0.4,
            }),
        );
    }

    #[test]
    fn a_sum_that_is_no_number() {
        let mut column = Column::default();
        column.add(0, b"1e308");
        column.add(1, b"1e308");
        assert_eq!(column.profile("c").expect_err("infinite").code(), code::NUMBER_OUT_OF_RANGE);
    }
}
