use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tasker_sdk::{Batchable, StepContext, StepError, StepHandler, StepResult, run_blocking};

use super::column::Column;
use super::{Cursor, Input};
use crate::csv_file::CsvFile;

/// More values than this make `group_by` a list of rows, which is not what it is for.
const MAX_GROUPS: usize = 10_000;

/// A column has more values than can be grouped by.
const TOO_MANY_GROUPS: &str = "TOO_MANY_GROUPS";

/// What is known of some rows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Rows {
    pub(super) rows: u64,
    pub(super) columns: BTreeMap<String, Column>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) groups: Option<BTreeMap<String, u64>>,
}

/// What a worker returns.
#[derive(Serialize)]
struct BatchResult<'a> {
    batch_id: &'a str,
    start_row: u64,
    end_row: u64,
    #[serde(flatten)]
    rows: Rows,
}

/// Profiles one range of rows.
pub(super) struct ProfileBatch;

impl Batchable for ProfileBatch {}

impl StepHandler for ProfileBatch {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        if let Some(result) = self.handle_no_op_worker(&ctx) {
            return Ok(result);
        }
        let batch = self.get_batch_context(&ctx)?;
        let (start, end): (Cursor, Cursor) = (batch.start_cursor_as()?, batch.end_cursor_as()?);
        let input: Input = ctx.input()?;
        let rows = run_blocking({
            let ctx = ctx.clone();
            move || Rows::read(&ctx, &input, start, end)
        })
        .await?;
        StepResult::of(&BatchResult {
            batch_id: batch.batch_id(),
            start_row: start.row,
            end_row: end.row,
            rows,
        })
    }
}

impl Rows {
    fn read(
        ctx: &StepContext,
        input: &Input,
        start: Cursor,
        end: Cursor,
    ) -> Result<Self, StepError> {
        let mut file = CsvFile::open(ctx, &input.csv_file_path)?;
        let group_by = input.group_by.as_deref().map(|name| file.column(name)).transpose()?;
        let mut columns = vec![Column::default(); file.columns().len()];
        let mut groups = group_by.map(|_| BTreeMap::new());
        file.seek(start.row, start.byte)?;
        while file.next_row() < end.row {
            let row = file.next_row();
            let Some(record) = file.read_row()? else { return Err(file.changed()) };
            for (column, field) in columns.iter_mut().zip(record) {
                column.add(row, field);
            }
            if let (Some(groups), Some(at)) = (&mut groups, group_by) {
                let value = String::from_utf8_lossy(record.get(at).unwrap_or_default());
                add_group(groups, value.into_owned(), 1)?;
            }
        }
        check_end(&mut file, end)?;
        let named = file.columns().iter().cloned().zip(columns);
        let columns: BTreeMap<_, _> = named.collect();
        for (name, column) in &columns {
            column.check(name)?;
        }
        Ok(Self { rows: end.row.saturating_sub(start.row), columns, groups })
    }

    /// Adds what is known of later rows.
    pub(super) fn merge(&mut self, later: Self) -> Result<(), StepError> {
        self.rows += later.rows;
        for (name, column) in later.columns {
            self.columns.entry(name).or_default().merge(column);
        }
        for (value, rows) in later.groups.into_iter().flatten() {
            add_group(self.groups.get_or_insert_default(), value, rows)?;
        }
        Ok(())
    }
}

/// The range must end where the analyzer saw it end; only blank lines may be left at the end of the
/// file.
fn check_end(file: &mut CsvFile, end: Cursor) -> Result<(), StepError> {
    let byte = file.byte();
    if byte > end.byte || (byte < end.byte && file.read_row()?.is_some()) {
        return Err(file.changed());
    }
    Ok(())
}

fn add_group(
    groups: &mut BTreeMap<String, u64>,
    value: String,
    rows: u64,
) -> Result<(), StepError> {
    *groups.entry(value).or_default() += rows;
    if groups.len() > MAX_GROUPS {
        let message = format!("group_by: the column has more than {MAX_GROUPS} values");
        return Err(StepError::permanent(TOO_MANY_GROUPS, message));
    }
    Ok(())
}
