//! Connections and transactions.

use std::future::Future;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgPool, Postgres, Transaction};
use tasker_config::Database;

use crate::quick::Quick;
use crate::shared::TaskCache;
use crate::templates::TemplateCache;
use crate::{StoreError, address};

/// The database. Clones share their connections.
///
/// Its functions must run to their end: a caller that may be cancelled runs them in a task of their
/// own, since a dropped `begin` can leave an open transaction in the pool (sqlx#4385).
#[derive(Debug, Clone)]
pub struct Store {
    /// Transactions that carry steps.
    pub(crate) hot: PgPool,
    /// Outcomes and submissions, where they are single statements.
    pub(crate) quick: Quick,
    /// Single reads of the API.
    pub(crate) reads: Quick,
    /// Records that a crash of the database may forget, since a sweep makes up for them: nobody waits
    /// until they are on disk.
    pub(crate) lazy: PgPool,
    /// Reads and the API.
    pub(crate) api: PgPool,
    pub(crate) templates: Arc<TemplateCache>,
    pub(crate) tasks: Arc<TaskCache>,
    /// What templates are read for.
    pub(crate) environment: Option<Arc<str>>,
    /// Which tables had more than a few pages at the last look, a bit for each.
    pub(crate) large_tables: Arc<AtomicI32>,
}

/// Two expansions write two chunks each at the same time; with fewer connections they would wait for
/// each other's.
const MIN_HOT: u32 = 4;

/// Connections of what nobody waits for.
const LAZY: u32 = 1;

/// Connections idle for longer are tested before they are used.
pub(crate) const MAX_UNTESTED: Duration = Duration::from_millis(500);

/// How often a transaction that lost against another one is run again.
const MAX_CONFLICTS: u32 = 5;

impl Store {
    /// Connects. Time limits are kept by the server, not by the caller.
    ///
    /// # Errors
    /// If the URL is invalid or the server cannot be reached within 30 s.
    pub async fn connect(settings: &Database) -> Result<Self, StoreError> {
        let hot = settings.hot_connections.max(MIN_HOT);
        if hot > settings.hot_connections {
            tracing::warn!(hot, "database.hot_connections is too small; using more");
        }
        let hot = pool(settings, hot, "tasker hot", &[]).await?;
        let lazy = [("synchronous_commit", "off".to_owned())];
        let lazy = pool(settings, LAZY, "tasker lazy", &lazy).await?;
        let api = pool(settings, settings.api_connections, "tasker api", &[]).await?;
        let most = settings.quick_connections.max(1);
        let quick = pool(settings, most, "tasker quick", &[]).await?;
        let quick = Quick::new(quick, most as usize);
        let reads = Quick::new(api.clone(), settings.api_connections as usize / 2);
        let store = Self {
            hot,
            quick,
            reads,
            lazy,
            api,
            templates: Arc::default(),
            tasks: Arc::default(),
            environment: None,
            large_tables: Arc::default(),
        };
        // Of nothing that is planned yet does it matter; where it is not known, all is planned once more.
        let large = store.find_large_tables().await.unwrap_or(0);
        store.large_tables.store(large, Ordering::Relaxed);
        Ok(store)
    }

    /// Wraps a pool that exists, for tests of single statements.
    pub fn from_pool(pool: PgPool) -> Self {
        Self {
            hot: pool.clone(),
            quick: Quick::new(pool.clone(), 1),
            reads: Quick::new(pool.clone(), 1),
            lazy: pool.clone(),
            api: pool,
            templates: Arc::default(),
            tasks: Arc::default(),
            environment: None,
            large_tables: Arc::default(),
        }
    }

    /// The same database, with templates as they are in this environment.
    #[must_use]
    pub fn in_environment(self, environment: &str) -> Self {
        Self { environment: Some(environment.into()), templates: Arc::default(), ..self }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query_scalar!("select 1").fetch_one(&self.api).await?;
        Ok(())
    }

    /// Closes all connections once they are idle.
    pub async fn close(&self) {
        self.hot.close().await;
        self.quick.close().await;
        self.reads.close().await;
        self.lazy.close().await;
    }
}

/// When a statement was last found to have been prepared for another schema, or planned for tables that were
/// tiny.
static STATEMENTS_OUTDATED: Mutex<Option<Instant>> = Mutex::new(None);

/// Closes all connections that there are now before they are used again: they remember statements with
/// results of a type that is no more, and would refuse each of them again and again, or plans that no longer
/// fit.
pub(crate) fn forget_statements() {
    *STATEMENTS_OUTDATED.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

/// Whether a connection that was made so long ago may remember such statements.
pub(crate) fn is_outdated(age: Duration) -> bool {
    let changed = *STATEMENTS_OUTDATED.lock().unwrap_or_else(PoisonError::into_inner);
    changed.is_some_and(|changed| age >= changed.elapsed())
}

/// How statements are planned.
pub(crate) const PLANNING: [(&str, &str); 7] = [
    // Plans of statements over arrays do not depend on the values; planning each one again
    // costs more than it gains.
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    // Every statement goes through an index. The planner, with the statistics of a table that
    // was empty a minute ago, would read all of it instead, with parallel workers.
    ("enable_seqscan", "off"),
    // The same for joins: rows are looked up by key (nearly always in memory), where the
    // planner would merge or hash whole indexes. It follows that no statement may join two sets
    // that exist only in it: there is no key, and each row would meet each. Sets are joined to
    // tables, and what is needed of a set comes along.
    ("enable_mergejoin", "off"),
    ("enable_hashjoin", "off"),
    ("random_page_cost", "1.0"),
    ("max_parallel_workers_per_gather", "0"),
];

async fn pool(
    settings: &Database,
    size: u32,
    name: &str,
    more: &[(&str, String)],
) -> Result<PgPool, StoreError> {
    let options = address::options(settings)?;
    let limit = |ms: u64| format!("{ms}ms");
    let options = options.application_name(name).statement_cache_capacity(256).options([
        ("statement_timeout", limit(settings.statement_timeout_ms)),
        ("lock_timeout", limit(settings.lock_timeout_ms)),
        ("idle_in_transaction_session_timeout", limit(settings.idle_in_transaction_timeout_ms)),
    ]);
    let options = options.options(PLANNING);
    let options = options.options(more.iter().cloned());
    let pool = PgPoolOptions::new()
        .max_connections(size)
        .min_connections(1)
        .acquire_timeout(Duration::from_secs(30))
        .test_before_acquire(false)
        .before_acquire(|connection, about| {
            Box::pin(async move {
                // A connection that was at work a moment ago is not asked whether it lives: that
                // would be a round trip for every statement.
                if about.idle_for > MAX_UNTESTED {
                    connection.ping().await?;
                }
                Ok(!is_outdated(about.age))
            })
        })
        .connect_with(options)
        .await?;
    Ok(pool)
}

pub(crate) type Tx = Transaction<'static, Postgres>;

/// Ends a transaction. An error means that nobody knows whether it happened.
pub(crate) async fn commit(tx: Tx) -> Result<(), StoreError> {
    tx.commit().await.map_err(StoreError::CommitUnknown)
}

/// Runs a transaction again when it lost against another one (deadlock, serialisation).
pub(crate) async fn retry_conflicts<T, F>(mut run: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut conflicts = 0;
    loop {
        match run().await {
            Err(error) if error.is_conflict() && conflicts < MAX_CONFLICTS => {
                conflicts += 1;
                metrics::counter!("tasker_store_conflicts_total").increment(1);
                tokio::time::sleep(Duration::from_millis(u64::from(7 * conflicts))).await;
            }
            result => return result,
        }
    }
}
