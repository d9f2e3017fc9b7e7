//! What the database server has done, for `tasker bench`.

use sqlx::FromRow;

use crate::{Store, StoreError};

/// Counters of the server, which only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct ServerCounters {
    /// Bytes of the write-ahead log.
    pub wal_bytes: i64,
    /// Transactions that have written something.
    pub writing_transactions: i64,
    /// Size of the database, in bytes.
    pub database_bytes: i64,
    /// Statements, those of transactions among them; `None` if the server does not count them.
    pub statements: Option<i64>,
    /// Statements that stored outcomes, each of which is a transaction; `None` as above.
    pub outcome_statements: Option<i64>,
}

const COUNTERS: &str = "
    select (pg_current_wal_lsn() - '0/0')::bigint as wal_bytes,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint as writing_transactions,
           pg_database_size(current_database()) as database_bytes,
           null::bigint as statements, null::bigint as outcome_statements";

const STATEMENTS: &str = "
    select sum(calls)::bigint,
           coalesce(sum(calls) filter (where query ~ 'insert into tasker.outcomes'), 0)::bigint
    from pg_stat_statements";

impl Store {
    /// The counters now. Statements are counted where the server has loaded `pg_stat_statements`.
    ///
    /// # Errors
    /// If the database does not answer, or its user may not look.
    pub async fn server_counters(&self) -> Result<ServerCounters, StoreError> {
        let mut counters: ServerCounters = sqlx::query_as(COUNTERS).fetch_one(&self.api).await?;
        let loaded: String =
            sqlx::query_scalar("select current_setting('shared_preload_libraries')")
                .fetch_one(&self.api)
                .await?;
        if loaded.contains("pg_stat_statements") {
            sqlx::query("create extension if not exists pg_stat_statements")
                .execute(&self.api)
                .await?;
            let (statements, outcomes): (Option<i64>, Option<i64>) =
                sqlx::query_as(STATEMENTS).fetch_one(&self.api).await?;
            counters.statements = statements;
            counters.outcome_statements = outcomes;
        }
        Ok(counters)
    }
}
