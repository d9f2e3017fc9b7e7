//! Plans of statements whose tables were tiny when they were analyzed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::World;
use crate::pool::PLANNING;
use crate::replan::TABLES;

/// Statements that go through all that is open, or all there is, since that is what they are for: sweeps and
/// lists; and what operators ask for now and then.
const GO_THROUGH: [&str; 17] = [
    "batches/cancel_members.sql",
    "dispatch/find_unsent.sql",
    "dispatch/leave_batches.sql",
    "dispatch/wake_retries.sql",
    "doctor/",
    "lifecycle/claim_due.sql",
    "namespaces/",
    "repair/",
    "retention/",
    "tokens/",
    "verify/",
    "views/audit.sql",
    "views/dead_letters.sql",
    "views/list_steps.sql",
    "views/list_tasks.sql",
    "views/members.sql",
    "views/why.sql",
];

/// These go through what is open to begin with, but through no table for each row of another.
const BEGIN: [&str; 6] = [
    "batches/stalled_expansions.sql",
    "reconcile/bundled_batches.sql",
    "convergence/candidates.sql",
    "dispatch/claim_batches.sql",
    "reconcile/count_dispatched.sql",
    "reconcile/find_lost.sql",
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("read").path());
    let mut files: Vec<_> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

/// The plan that a connection of the store keeps for a statement, whatever its values.
async fn generic_plan(connection: &mut PgConnection, sql: &str) -> Value {
    let prepare = format!("prepare planned as {sql}");
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *connection).await.expect("prepared");
    let query = "select cardinality(parameter_types) from pg_prepared_statements
                 where name = 'planned'";
    let parameters: i32 =
        sqlx::query_scalar(query).fetch_one(&mut *connection).await.expect("read");
    let nulls = vec!["null"; parameters as usize].join(", ");
    let values = if nulls.is_empty() { String::new() } else { format!("({nulls})") };
    let explain = format!("explain (format json) execute planned{values}");
    let plan = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut *connection).await;
    sqlx::query("deallocate planned").execute(connection).await.expect("forgotten");
    plan.expect("planned")
}

/// The table of each index and the first of its columns.
async fn indexes(pool: &PgPool) -> HashMap<String, (String, String)> {
    let query = "select i.indexrelid::regclass::text, c.relname::text, a.attname::text
                 from pg_index i
                 join pg_class c on c.oid = i.indrelid
                 join pg_attribute a on a.attrelid = i.indexrelid and a.attnum = 1
                 where c.relnamespace = 'tasker'::regnamespace";
    let rows: Vec<(String, String, String)> =
        sqlx::query_as(query).fetch_all(pool).await.expect("read");
    let name = |index: String| index.trim_start_matches("tasker.").to_owned();
    rows.into_iter().map(|(index, table, column)| (name(index), (table, column))).collect()
}

/// Scans of tables without the first column of an index, and whether each is run for rows of something else.
fn scans(
    plan: &Value,
    inner: bool,
    indexes: &HashMap<String, (String, String)>,
    found: &mut Vec<(bool, String)>,
) {
    let text = |key: &str| plan[key].as_str().unwrap_or_default();
    if let Some((table, first)) = indexes.get(text("Index Name"))
        && TABLES.contains(&table.as_str())
        && !text("Index Cond").contains(&format!("({first} "))
    {
        found.push((inner, format!("{} without {first}", text("Index Name"))));
    }
    if text("Node Type") == "Seq Scan" && TABLES.contains(&text("Relation Name")) {
        found.push((inner, format!("all of {}", text("Relation Name"))));
    }
    for child in plan["Plans"].as_array().into_iter().flatten() {
        let relation = child["Parent Relationship"].as_str().unwrap_or_default();
        let repeats = match relation {
            "Inner" => text("Node Type") == "Nested Loop",
            other => other == "SubPlan",
        };
        scans(child, inner || repeats, indexes, found);
    }
}

fn large(world: &World) -> i32 {
    world.store.large_tables.load(Ordering::Relaxed)
}

#[sqlx::test]
async fn tables_that_were_tiny_are_read_by_key(pool: PgPool) {
    let world = World::new(pool).await;
    let replanned = async || world.store.replan_grown().await.expect("read");
    world.expand(3).await;
    world.submit().await;
    sqlx::query("analyze").execute(&world.pool).await.expect("analyzed");
    assert!(!replanned().await, "a few pages");
    // The statistics stay as they are: Postgres analyzes after a minute at the earliest.
    for _ in 0..900 {
        world.expand(1).await;
    }
    assert!(replanned().await, "more than that");
    let small: Vec<_> = (0..TABLES.len()).filter(|n| large(&world) & (1 << n) == 0).collect();
    assert_eq!(small.iter().map(|&n| TABLES[n]).collect::<Vec<_>>(), ["step_edges", "checkpoints"]);
    assert!(!replanned().await, "as before");
    let indexes = indexes(&world.pool).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
    let mut connection = world.pool.acquire().await.expect("a connection");
    for (setting, value) in PLANNING {
        let set = format!("set {setting} = {value}");
        sqlx::query(AssertSqlSafe(set)).execute(&mut *connection).await.expect("set");
    }
    let (mut looked_at, mut problems) = (0, Vec::new());
    for path in files(&folder) {
        let name = path.strip_prefix(&folder).expect("below").display().to_string();
        if GO_THROUGH.iter().any(|from| name.starts_with(from)) {
            continue;
        }
        let begins = BEGIN.contains(&name.as_str());
        let sql = fs::read_to_string(&path).expect("read");
        let plan = generic_plan(&mut connection, &sql).await;
        let mut found = Vec::new();
        scans(&plan[0]["Plan"], false, &indexes, &mut found);
        looked_at += 1;
        problems.extend(
            found
                .into_iter()
                .filter(|(inner, _)| *inner || !begins)
                .map(|(_, scan)| format!("{name}: {scan}")),
        );
    }
    assert!(looked_at > 20, "{looked_at}");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
