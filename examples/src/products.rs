//! Workload `products`: what the stock of a product list is worth.
//!
//! Money is added up as decimals, never as floats.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Number, json};
use tasker_sdk::{
    BatchAggregationScenario, Batchable, HandlerRegistry, MemberResult, MemberResultExt,
    StepContext, StepError, StepHandler, StepResult, code, run_blocking,
};

use crate::csv_file::CsvFile;

mod decimal;
mod figures;

use decimal::{exact_number, nearest_number, parse_number};
use figures::Figures;

pub(crate) fn handlers() -> HandlerRegistry {
    HandlerRegistry::new()
        .register("products.analyze_csv", AnalyzeCsv)
        .register("products.process_csv_batch", ProcessCsvBatch)
        .register("products.aggregate_csv_results", AggregateCsvResults)
}

/// The context of the task.
#[derive(Deserialize)]
struct Input {
    csv_file_path: String,
    #[serde(default)]
    analysis_mode: AnalysisMode,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum AnalysisMode {
    #[default]
    Inventory,
}

impl Input {
    fn of(ctx: &StepContext) -> Result<Self, StepError> {
        let input: Self = ctx.input()?;
        match input.analysis_mode {
            AnalysisMode::Inventory => Ok(input),
        }
    }
}

/// `handler.initialization` of the analyzer.
#[derive(Deserialize)]
struct AnalyzerConfig {
    batch_size: u32,
    max_workers: u32,
    worker_template: String,
}

/// Counts the rows and cuts them into ranges of row numbers.
struct AnalyzeCsv;

impl Batchable for AnalyzeCsv {}

impl StepHandler for AnalyzeCsv {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let config: AnalyzerConfig = ctx.config_as()?;
        let path = Input::of(&ctx)?.csv_file_path;
        let rows = run_blocking({
            let (ctx, path) = (ctx.clone(), path.clone());
            move || count_rows(&ctx, &path)
        })
        .await?;
        let ranges = self.create_cursor_ranges(rows, config.batch_size.into(), config.max_workers);
        let metadata =
            json!({"worker_count": ranges.len(), "total_rows": rows, "csv_file_path": path});
        if ranges.is_empty() {
            return self.no_batches_outcome("the file has a header and no rows", metadata);
        }
        self.batch_analyzer_success(&config.worker_template, ranges, rows, metadata)
    }
}

fn count_rows(ctx: &StepContext, path: &str) -> Result<u64, StepError> {
    let mut file = CsvFile::open(ctx, path)?;
    figures::Columns::of(&file)?;
    while file.read_row()?.is_some() {}
    Ok(file.next_row())
}

/// What a worker returns.
#[derive(Serialize, Deserialize)]
struct BatchResult {
    processed_count: u64,
    total_inventory_value: Number,
    category_counts: BTreeMap<String, u64>,
    max_price: Option<Number>,
    max_price_product: Option<String>,
    average_rating: Option<Number>,
    batch_id: String,
    start_row: u64,
    end_row: u64,
}

/// Works out the figures of one range of rows.
struct ProcessCsvBatch;

impl Batchable for ProcessCsvBatch {}

impl StepHandler for ProcessCsvBatch {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        if let Some(result) = self.handle_no_op_worker(&ctx) {
            return Ok(result);
        }
        let batch = self.get_batch_context(&ctx)?;
        let (start_row, end_row) = (batch.start_position()?, batch.end_position()?);
        let path = Input::of(&ctx)?.csv_file_path;
        let figures = run_blocking({
            let ctx = ctx.clone();
            move || Figures::read(&ctx, &path, start_row, end_row)
        })
        .await?;
        StepResult::of(&BatchResult {
            processed_count: figures.rows,
            total_inventory_value: exact_number(figures.inventory_value)?,
            category_counts: figures.category_counts,
            max_price: figures.max_price.map(exact_number).transpose()?,
            max_price_product: figures.max_price_product,
            average_rating: figures.ratings.checked_div(figures.rows.into()).map(nearest_number),
            batch_id: batch.batch_id().to_owned(),
            start_row,
            end_row,
        })
    }
}

/// What the aggregator returns.
#[derive(Serialize)]
struct Aggregate {
    total_processed: u64,
    total_inventory_value: Number,
    category_counts: BTreeMap<String, u64>,
    max_price: Option<Number>,
    max_price_product: Option<String>,
    overall_average_rating: Option<Number>,
    worker_count: u32,
    /// Ranges that are missing from the figures, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed_batches: BTreeMap<String, String>,
}

/// Puts the figures of all ranges together.
struct AggregateCsvResults;

impl StepHandler for AggregateCsvResults {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let (members, worker_count) = match BatchAggregationScenario::detect(&ctx).await? {
            BatchAggregationScenario::NoBatches { .. } => (Vec::new(), 0),
            BatchAggregationScenario::WithBatches { batch_results, worker_count } => {
                (batch_results, worker_count)
            }
        };
        let mut total = Figures::default();
        let mut failed_batches = BTreeMap::new();
        for member in &members {
            match member.result_as::<BatchResult>()? {
                Some(result) => total.merge(read_back(member, result)?)?,
                None => {
                    failed_batches
                        .insert(member.name.clone(), member.failure_text().unwrap_or_default());
                }
            }
        }
        StepResult::of(&Aggregate {
            total_processed: total.rows,
            total_inventory_value: exact_number(total.inventory_value)?,
            category_counts: total.category_counts,
            max_price: total.max_price.map(exact_number).transpose()?,
            max_price_product: total.max_price_product,
            overall_average_rating: total
                .ratings
                .checked_div(total.rows.into())
                .map(nearest_number),
            worker_count,
            failed_batches,
        })
    }
}

fn read_back(member: &MemberResult, result: BatchResult) -> Result<Figures, StepError> {
    let number = |number: &Number| {
        parse_number(&number.to_string()).ok_or_else(|| {
            let message = format!("the result of `{}`: {number} is no decimal", member.name);
            StepError::permanent(code::RESULT_SHAPE, message)
        })
    };
    let average = result.average_rating.as_ref().map_or(Ok(Decimal::ZERO), number)?;
    let rows = Decimal::from(result.processed_count);
    Ok(Figures {
        rows: result.processed_count,
        inventory_value: number(&result.total_inventory_value)?,
        category_counts: result.category_counts,
        max_price: result.max_price.as_ref().map(number).transpose()?,
        max_price_product: result.max_price_product,
        ratings: average.checked_mul(rows).ok_or_else(decimal::overflow)?,
    })
}
