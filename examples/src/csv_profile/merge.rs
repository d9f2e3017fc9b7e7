use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tasker_sdk::{
    FanIn, MemberResult, MemberResultExt, StepContext, StepError, StepHandler, StepResult,
    StreamingAggregator, run_streaming,
};

use super::Input;
use super::column::{Column, ColumnProfile};
use super::profile::Rows;

/// Ranges that failed are named up to this number.
const MAX_NAMED_FAILURES: usize = 100;

/// What is needed of the analyzer's result: the columns, in case there is no row.
#[derive(Deserialize)]
struct Analyzed {
    columns: Vec<String>,
}

/// The result of the task.
#[derive(Serialize)]
struct Profile {
    rows: u64,
    columns: BTreeMap<String, ColumnProfile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<BTreeMap<String, u64>>,
    worker_count: u32,
    /// How many ranges are missing from the figures.
    #[serde(skip_serializing_if = "is_zero")]
    failed_count: u32,
    /// Which ones, and why: the first of them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed_batches: BTreeMap<String, String>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Puts the profiles of all ranges together, in the order of the rows.
pub(super) struct MergeProfiles;

impl StepHandler for MergeProfiles {
    async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
        let input: Input = ctx.input()?;
        let analyzer = ctx.batches().first().map_or("", |batch| &batch.batchable_step);
        let Analyzed { columns } = ctx.dependency_result_as(analyzer).await?;
        run_streaming(&ctx, &Merge { columns, grouped: input.group_by.is_some() }).await
    }
}

struct Merge {
    columns: Vec<String>,
    grouped: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Merged {
    rows: Rows,
    failed_batches: BTreeMap<String, String>,
}

impl StreamingAggregator for Merge {
    type Acc = Merged;

    fn fold(&self, acc: &mut Merged, member: &MemberResult) -> Result<(), StepError> {
        match member.result_as::<Rows>()? {
            Some(rows) => acc.rows.merge(rows),
            None => {
                if acc.failed_batches.len() < MAX_NAMED_FAILURES {
                    let why = member.failure_text().unwrap_or_default();
                    acc.failed_batches.insert(member.name.clone(), why);
                }
                Ok(())
            }
        }
    }

    fn finish(&self, acc: Merged, fan_in: &FanIn) -> Result<StepResult, StepError> {
        let Merged { rows: Rows { rows, mut columns, groups }, failed_batches } = acc;
        for name in &self.columns {
            columns.entry(name.clone()).or_insert_with(Column::default);
        }
        let columns = columns
            .into_iter()
            .map(|(name, column)| Ok((name.clone(), column.profile(&name)?)))
            .collect::<Result<_, StepError>>()?;
        StepResult::of(&Profile {
            rows,
            columns,
            groups: self.grouped.then(|| groups.unwrap_or_default()),
            worker_count: fan_in.worker_count,
            failed_count: fan_in.failed,
            failed_batches,
        })
    }
}
