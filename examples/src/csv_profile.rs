//! Workload `csv_profile`: what is in each column of a CSV file of any size.
//!
//! The analyzer reads the file once and notes where ranges of rows start, so that workers go
//! straight to theirs. Nobody holds more than one record and the figures of the columns.

mod analyze;
mod column;
mod merge;
mod profile;
mod sum;

use serde::{Deserialize, Serialize};
use tasker_sdk::HandlerRegistry;

pub(crate) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("csv_profile.analyze_csv", analyze::AnalyzeCsv)
        .register("csv_profile.profile_batch", profile::ProfileBatch)
        .register("csv_profile.merge_profiles", merge::MergeProfiles)
}

/// The context of the task.
#[derive(Debug, Clone, Deserialize)]
struct Input {
    csv_file_path: String,
    /// Data rows in each range.
    #[serde(default)]
    rows_per_batch: Option<u32>,
    /// A column whose values are counted.
    #[serde(default)]
    group_by: Option<String>,
}

/// A place in the file: the data row, 0-based, and the byte at which it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    row: u64,
    byte: u64,
}
