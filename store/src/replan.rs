//! Plans that were made for tables of a few rows.
//!
//! Connections keep the plan of each statement. One that was made when a table had a few rows may read all
//! of it where it should look up a row, which costs more with each row that comes, until Postgres analyzes the
//! table again: a minute later, and sooner than that there may be thousands. Statements leave the planner
//! as little choice as they can; where they update what they look up, it still has one.

use std::sync::atomic::Ordering;

use crate::pool::forget_statements;
use crate::{Store, StoreError};

/// Tables that statements look rows up in.
pub(crate) const TABLES: [&str; 6] =
    ["steps", "outcomes", "tasks", "batches", "step_edges", "checkpoints"];

/// With tables larger than this, statements are planned to look rows up by key (`tests/plans.rs`).
pub(crate) const FEW_BYTES: i64 = 8 * 8_192;

impl Store {
    /// Has all statements of this process planned anew if a table is more than a few pages large and was
    /// not at the last look, and says whether it has.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn replan_grown(&self) -> Result<bool, StoreError> {
        let large = self.find_large_tables().await?;
        let before = self.large_tables.swap(large, Ordering::Relaxed);
        let has_grown = large & !before != 0;
        if has_grown {
            forget_statements();
        }
        Ok(has_grown)
    }

    /// A bit for each of [`TABLES`] that has more than a few pages.
    pub(crate) async fn find_large_tables(&self) -> Result<i32, StoreError> {
        let tables = TABLES.map(str::to_owned);
        let large = sqlx::query_scalar!(
            r#"select coalesce(bit_or(1 << (n::int - 1)), 0) as "large!"
               from unnest($1::text[]) with ordinality as t(name, n)
               where pg_relation_size(to_regclass('tasker.' || t.name)) > $2"#,
            &tables,
            FEW_BYTES,
        )
        .fetch_one(&self.api)
        .await?;
        Ok(large)
    }
}
