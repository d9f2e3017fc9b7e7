use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::{DevState, Process};

/// The rows behind a cluster, read with the `psql` that came with its Postgres.
#[derive(Debug, Clone)]
pub struct Database {
    psql: PathBuf,
    url: String,
}

const LIMIT: Duration = Duration::from_secs(30);

impl Database {
    pub(crate) fn of(state: &DevState) -> anyhow::Result<Self> {
        let folder = Process::running(state.pids.postgres)?.program_folder()?;
        let psql = [folder.join("psql"), PathBuf::from("/usr/bin/psql")];
        let psql = psql.into_iter().find(|program| program.is_file()).with_context(|| {
            format!("there is no psql in {}; install postgresql-client", folder.display())
        })?;
        Ok(Self { psql, url: state.database_url.clone() })
    }

    /// Another database of the same server.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        let server = self.url.rsplit_once('/').map_or(self.url.as_str(), |(server, _)| server);
        Self { url: format!("{server}/{name}"), ..self.clone() }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The rows of a query, each an object.
    ///
    /// # Errors
    /// If the query fails.
    pub async fn rows(&self, query: &str) -> anyhow::Result<Value> {
        let query = format!("select coalesce(json_agg(q), '[]') from ({query}) as q");
        serde_json::from_slice(&self.run(&query).await?).with_context(|| query)
    }

    /// Runs statements in one transaction, and returns what they print.
    ///
    /// # Errors
    /// If one of them fails, or they take longer than 30 s.
    pub async fn run(&self, statements: &str) -> anyhow::Result<Vec<u8>> {
        let output = tokio::time::timeout(LIMIT, self.psql(statements).output()).await??;
        if !output.status.success() {
            bail!("{statements}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }

    /// Begins statements in one transaction, for instance one that holds locks for long.
    ///
    /// # Errors
    /// If there is no program for it.
    pub fn begin(&self, statements: &str) -> anyhow::Result<Child> {
        Ok(self.psql(statements).stdout(Stdio::null()).spawn()?)
    }

    fn psql(&self, statements: &str) -> Command {
        let mut psql = Command::new(&self.psql);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements])
            .arg(&self.url);
        // Another database may be set up for other tests.
        psql.env_remove("PGSERVICE").env_remove("PGSERVICEFILE").kill_on_drop(true);
        psql
    }

    /// The only row of a query.
    ///
    /// # Errors
    /// If the query fails or has another number of rows.
    pub async fn row(&self, query: &str) -> anyhow::Result<Value> {
        match self.rows(query).await? {
            Value::Array(mut rows) if rows.len() == 1 => Ok(rows.remove(0)),
            other => bail!("not one row but {other}: {query}"),
        }
    }
}
