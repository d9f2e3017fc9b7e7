//! What really ran, as the handlers wrote it down, held against what was stored.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, ensure};
use tasker_tests::Cluster;

/// What the ledger and the rows say together.
#[derive(Debug, Default)]
pub(super) struct Executions {
    /// Attempts that a handler began.
    pub(super) begun: u64,
    /// Attempts that were begun more than once, and by which processes: the fence has failed.
    pub(super) twice: Vec<(String, Vec<String>)>,
    /// Attempts that were stored and that nobody began.
    pub(super) invented: u64,
    /// Attempts that were begun and neither ended their step nor failed: their worker was killed, or
    /// what they reported was refused.
    pub(super) wasted: u64,
    /// Results that were stored as those of another attempt than the one that returned them.
    pub(super) foreign: u64,
}

impl Executions {
    /// Whether each attempt was run once at the most, and what is stored is what it returned.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let Self { twice, invented, foreign, .. } = self;
        ensure!(twice.is_empty(), "{} attempts were begun twice, as {:?}", twice.len(), twice[0]);
        ensure!(*invented == 0, "{invented} attempts are stored that nobody began");
        ensure!(*foreign == 0, "{foreign} results are stored under an attempt that is not theirs");
        Ok(())
    }
}

/// Results that say another attempt than the row that they are in.
const FOREIGN: &str = "select count(*) from tasker.outcomes o
    join tasker.steps s on s.id = o.step_id and s.namespace like 'chaos-%'
    where (o.result ->> 'attempt')::int <> o.attempt";

/// Reads all of it.
pub(super) async fn read(cluster: &Cluster) -> anyhow::Result<Executions> {
    let begun = lines(cluster)?;
    let stored = cluster
        .database()?
        .rows(
            "select step_id || ' ' || attempt as attempt from (
                 select o.step_id, o.attempt from tasker.outcomes o
                 join tasker.steps s on s.id = o.step_id and s.namespace like 'chaos-%'
                 where o.worker is not null and coalesce(o.error ->> 'code', '') <> 'STEP_POISONED'
                 union all
                 select f.step_id, f.attempt from tasker.failed_attempts f
                 where f.worker is not null and f.namespace like 'chaos-%'
             ) a",
        )
        .await?;
    let stored = stored.as_array().context("rows")?;
    let ran =
        stored.iter().filter(|row| row["attempt"].as_str().is_some_and(|a| begun.contains_key(a)));
    let (all, ran) = (begun.len() as u64, ran.count() as u64);
    Ok(Executions {
        begun: all,
        twice: begun.into_iter().filter(|(_, by)| by.len() > 1).collect(),
        invented: stored.len() as u64 - ran,
        wasted: all - ran,
        foreign: count(cluster, FOREIGN).await?,
    })
}

/// Which processes began each attempt. The last line of a process that was killed may be cut off.
fn lines(cluster: &Cluster) -> anyhow::Result<HashMap<String, Vec<String>>> {
    let mut begun: HashMap<String, Vec<String>> = HashMap::new();
    for file in fs::read_dir(cluster.scratch().path().join("ledger"))? {
        let path = file?.path();
        let process = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for line in fs::read_to_string(&path)?.split_inclusive('\n') {
            if let Some(line) = line.strip_suffix('\n') {
                begun.entry(line.to_owned()).or_default().push(process.clone());
            }
        }
    }
    Ok(begun)
}

/// One number about all rows.
pub(super) async fn count(cluster: &Cluster, query: &str) -> anyhow::Result<u64> {
    let row = cluster.database()?.row(&format!("select ({query}) as n")).await?;
    row["n"].as_u64().with_context(|| format!("no number: {row}"))
}

/// The numbers of `/metrics` of the orchestrators that answer, by name and labels. Several share one
/// address, and each connection reaches one of them.
pub(super) fn metric(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
