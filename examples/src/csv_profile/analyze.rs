use std::mem;

use serde::Deserialize;
use serde_json::json;
use tasker_messages::{code as wire_code, cursor::batch_id};
use tasker_sdk::{
    Batchable, CursorConfig, StepContext, StepError, StepHandler, StepResult, code, run_blocking,
};
use tokio::sync::mpsc;

use super::{Cursor, Input};
use crate::csv_file::CsvFile;

/// Up to so many ranges are listed in the outcome; more are appended while the file is read.
const MAX_LISTED_RANGES: usize = 5_000;

/// Ranges that the reading thread hands over at a time.
const RANGES_PER_PAGE: usize = 1_000;

/// `handler.initialization` of the analyzer.
#[derive(Deserialize)]
struct AnalyzerConfig {
    worker_template: String,
    #[serde(default = "default_rows_per_batch")]
    rows_per_batch: u32,
}

fn default_rows_per_batch() -> u32 {
    1_000
}

/// Notes where each range of rows starts and ends.
pub(super) struct AnalyzeCsv;

impl Batchable for AnalyzeCsv {}

impl StepHandler for AnalyzeCsv {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let config: AnalyzerConfig = ctx.config_as()?;
        let input: Input = ctx.input()?;
        let rows_per_batch = input.rows_per_batch.unwrap_or(config.rows_per_batch);
        if rows_per_batch == 0 {
            let message = "rows_per_batch: must be at least 1";
            return Err(StepError::permanent(code::VALIDATION_ERROR, message));
        }
        let path = input.csv_file_path.clone();
        let (pages, incoming) = mpsc::channel(2);
        let reading = run_blocking({
            let ctx = ctx.clone();
            move || Splitter::open(&ctx, &input, pages)?.run(rows_per_batch)
        });
        let (found, ranges) = tokio::try_join!(reading, gather(&ctx, incoming))?;
        let metadata = json!({
            "worker_count": found.ranges,
            "rows": found.rows,
            "columns": found.columns,
            "csv_file_path": path,
            "rows_per_batch": rows_per_batch,
        });
        let template = &config.worker_template;
        match ranges {
            Ranges::Listed(list) if list.is_empty() => {
                self.no_batches_outcome("the file has a header and no rows", metadata)
            }
            Ranges::Listed(list) => {
                self.batch_analyzer_success(template, list, found.rows, metadata)
            }
            Ranges::Appended(count) => {
                self.batch_appended_success(template, count, found.rows, metadata)
            }
        }
    }
}

/// Ranges of a file of unknown length: kept while they are few, stored when they are many.
enum Ranges {
    Listed(Vec<CursorConfig>),
    Appended(u32),
}

async fn gather(
    ctx: &StepContext,
    mut incoming: mpsc::Receiver<Vec<CursorConfig>>,
) -> Result<Ranges, StepError> {
    let mut ranges = Ranges::Listed(Vec::new());
    while let Some(mut page) = incoming.recv().await {
        match &mut ranges {
            Ranges::Appended(count) => *count = ctx.append_cursors(page).await?,
            Ranges::Listed(list) => {
                list.append(&mut page);
                if list.len() > MAX_LISTED_RANGES {
                    ranges = Ranges::Appended(ctx.append_cursors(mem::take(list)).await?);
                }
            }
        }
    }
    Ok(ranges)
}

/// Reads a file once, on a thread that may block.
struct Splitter {
    file: CsvFile,
    pages: mpsc::Sender<Vec<CursorConfig>>,
    page: Vec<CursorConfig>,
    ranges: u32,
}

/// What a file turned out to hold.
struct Found {
    rows: u64,
    columns: Vec<String>,
    ranges: u32,
}

impl Splitter {
    fn open(
        ctx: &StepContext,
        input: &Input,
        pages: mpsc::Sender<Vec<CursorConfig>>,
    ) -> Result<Self, StepError> {
        let file = CsvFile::open(ctx, &input.csv_file_path)?;
        // Better to fail here than in every worker.
        if let Some(column) = &input.group_by {
            file.column(column)?;
        }
        Ok(Self { file, pages, page: Vec::new(), ranges: 0 })
    }

    fn run(mut self, rows_per_batch: u32) -> Result<Found, StepError> {
        let mut start = self.here();
        loop {
            let before = self.here();
            if self.file.read_row()?.is_none() {
                break;
            }
            if before.row - start.row == u64::from(rows_per_batch) {
                self.add(start, before)?;
                start = before;
            }
        }
        let end = self.here();
        if end.row > start.row {
            self.add(start, end)?;
        }
        self.send_page()?;
        let columns = self.file.columns().to_vec();
        Ok(Found { rows: end.row, columns, ranges: self.ranges })
    }

    fn here(&self) -> Cursor {
        Cursor { row: self.file.next_row(), byte: self.file.byte() }
    }

    fn add(&mut self, start: Cursor, end: Cursor) -> Result<(), StepError> {
        self.page.push(CursorConfig {
            batch_id: batch_id(self.ranges),
            start_cursor: json!(start),
            end_cursor: json!(end),
            // At most the rows of one range, a u32.
            batch_size: (end.row - start.row) as u32,
        });
        self.ranges = self.ranges.checked_add(1).ok_or_else(|| {
            let message = "more ranges than a batch can have; raise rows_per_batch";
            StepError::permanent(wire_code::BATCH_TOO_LARGE, message)
        })?;
        if self.page.len() == RANGES_PER_PAGE { self.send_page() } else { Ok(()) }
    }

    fn send_page(&mut self) -> Result<(), StepError> {
        let page = mem::take(&mut self.page);
        self.pages.blocking_send(page).map_err(|_| {
            // The handler is gone; nobody sees this error.
            StepError::retryable(code::CANCELLED, "nobody takes the ranges")
        })
    }
}
