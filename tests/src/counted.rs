use anyhow::Context;
use serde_json::Value;

use crate::Cluster;
use crate::servers::{Changed, changed, free_port};

/// A cluster of one orchestrator and one worker whose servers count what they are asked for.
#[derive(Debug)]
pub struct Counted {
    cluster: Cluster,
    /// Where nats-server tells its counters.
    monitor: String,
}

/// What the servers of a cluster have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// SQL statements, those of transactions among them.
    pub statements: u64,
    /// Transactions that were committed.
    pub transactions: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Messages that clients have sent to nats-server.
    pub sent: u64,
    /// Messages that it has delivered to clients.
    pub delivered: u64,
}

impl Costs {
    /// What was done since.
    pub fn since(self, before: Self) -> Self {
        Self {
            statements: self.statements - before.statements,
            transactions: self.transactions - before.transactions,
            wal_bytes: self.wal_bytes - before.wal_bytes,
            sent: self.sent - before.sent,
            delivered: self.delivered - before.delivered,
        }
    }
}

impl Counted {
    /// Starts it.
    ///
    /// # Errors
    /// If it does not become ready, or Postgres has no `pg_stat_statements`, which is among its
    /// contributed modules.
    pub async fn start() -> anyhow::Result<Self> {
        // Free now; whoever takes it before nats-server does makes this test fail, not lie.
        let port = free_port()?;
        let more = |arguments: String| Changed { arguments, ..Changed::default() };
        let counts = more("-c shared_preload_libraries=pg_stat_statements".to_owned());
        let monitored = more(format!("-a 127.0.0.1 -m {port}"));
        let servers = |scratch: &_| changed(scratch, &counts, &monitored);
        let cluster = Cluster::with_servers(1, 1, "", servers).await?;
        cluster
            .database()?
            .run("create extension pg_stat_statements")
            .await
            .context("Postgres needs its contributed modules (postgresql-contrib)")?;
        Ok(Self { cluster, monitor: format!("http://127.0.0.1:{port}/varz") })
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The counters now.
    ///
    /// # Errors
    /// If a server does not answer.
    pub async fn costs(&self) -> anyhow::Result<Costs> {
        let rows = self
            .cluster
            .database()?
            .row(
                "select sum(calls)::bigint as statements,
                        (sum(calls) filter (where query = 'COMMIT'))::bigint as transactions,
                        (pg_current_wal_lsn() - '0/0')::bigint as wal_bytes
                 from pg_stat_statements",
            )
            .await?;
        let bus: Value = reqwest::get(&self.monitor).await?.json().await?;
        let number = |of: &Value, key: &str| {
            of[key].as_u64().with_context(|| format!("no number {key} in {of}"))
        };
        Ok(Costs {
            statements: number(&rows, "statements")?,
            transactions: number(&rows, "transactions")?,
            wal_bytes: number(&rows, "wal_bytes")?,
            sent: number(&bus, "in_msgs")?,
            delivered: number(&bus, "out_msgs")?,
        })
    }
}
