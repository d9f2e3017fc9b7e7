//! The invariants of a cluster, held against its rows: `tasker verify`.
//!
//! Everything is read in one snapshot, so that a cluster may work meanwhile. What plain SQL can tell is
//! in `queries/verify/`; what depends on templates is asked of the same rules that made the rows.

mod rules;

use sqlx::PgPool;
use tasker_messages::{Invariant, Offender, TaskId, Verification};
use uuid::Uuid;

use crate::pool::{Tx, commit};
use crate::{Store, StoreError};

/// Offenders that are named; all are counted.
const NAMED: u32 = 20;

/// What is asked of all rows.
#[derive(Debug, Clone, Default)]
pub struct VerifyRequest {
    /// Everything that was asked for has ended, and nothing may be open any more.
    pub at_rest: bool,
    /// Tasks that somebody was told are accepted.
    pub accepted: Vec<TaskId>,
}

/// One row of a query: an offender, and how many there are.
struct Found {
    id: Uuid,
    what: String,
    total: i64,
}

/// Offenders against one invariant.
#[derive(Default)]
struct Offences {
    violations: u64,
    named: Vec<Offender>,
}

impl Offences {
    fn rows(mut self, rows: Vec<Found>) -> Self {
        self.violations += rows.first().map_or(0, |row| row.total as u64);
        self.named.extend(rows.into_iter().map(|row| Offender { id: row.id, what: row.what }));
        self
    }

    fn one(&mut self, id: Uuid, what: impl FnOnce() -> String) {
        self.violations += 1;
        if self.named.len() < NAMED as usize {
            self.named.push(Offender { id, what: what() });
        }
    }

    fn against(mut self, id: &str, rule: &str) -> Invariant {
        self.named.truncate(NAMED as usize);
        Invariant {
            id: id.to_owned(),
            rule: rule.to_owned(),
            ok: self.violations == 0,
            violations: self.violations,
            offenders: self.named,
        }
    }
}

/// One of the queries that take nothing but how many offenders to name.
macro_rules! found {
    ($tx:ident, $file:literal $(, $more:expr)*) => {
        sqlx::query_file_as!(Found, $file, i64::from(NAMED) $(, $more)*)
            .fetch_all(&mut **$tx)
            .await?
    };
}

impl Store {
    /// Holds the invariants against all rows, in one snapshot.
    ///
    /// # Errors
    /// If the database fails, takes longer than ten minutes over one of them, or holds a template that
    /// this version cannot read.
    pub async fn verify(&self, request: &VerifyRequest) -> Result<Verification, StoreError> {
        let mut tx = snapshot(&self.api).await?;
        let found = self.verify_in(&mut tx, request).await?;
        commit(tx).await?;
        Ok(found)
    }

    /// The same in a transaction that sees what it will.
    pub(crate) async fn verify_in(
        &self,
        tx: &mut Tx,
        request: &VerifyRequest,
    ) -> Result<Verification, StoreError> {
        let ruled = self.hold_against_rules(tx).await?;
        let invariants = check(tx, request, ruled).await?;
        let rows = sqlx::query!(
            r#"select (select count(*) from tasker.tasks) as "tasks!",
                      (select count(*) from tasker.steps) as "steps!",
                      (select count(*) from tasker.outcomes) as "outcomes!""#
        )
        .fetch_one(&mut **tx)
        .await?;
        Ok(Verification {
            ok: invariants.iter().all(|invariant| invariant.ok),
            tasks: rows.tasks as u64,
            steps: rows.steps as u64,
            outcomes: rows.outcomes as u64,
            invariants,
        })
    }
}

async fn check(
    tx: &mut Tx,
    request: &VerifyRequest,
    ruled: rules::Ruled,
) -> Result<Vec<Invariant>, StoreError> {
    let accepted: Vec<Uuid> = request.accepted.iter().map(|id| id.as_uuid()).collect();
    let counters = Offences::default()
        .rows(found!(tx, "queries/verify/batches.sql"))
        .rows(found!(tx, "queries/verify/tasks.sql"))
        .rows(found!(tx, "queries/verify/waits.sql"));
    Ok(vec![
        Offences::default()
            .rows(found!(tx, "queries/verify/ends.sql"))
            .against("I1", "each outcome is of a step that could end, by one attempt"),
        ruled
            .order
            .rows(found!(tx, "queries/verify/order.sql"))
            .against("I2", "a step exists only when and where its parents have made it possible"),
        Offences::default()
            .rows(found!(tx, "queries/verify/members.sql"))
            .against("I3", "a sealed batch has exactly its members"),
        ruled.counters.with(counters).against("I4", "counters equal what they count"),
        ruled
            .budgets
            .rows(found!(tx, "queries/verify/attempts.sql"))
            .against("I5", "attempts only rise, within their budget, and repairs are on record"),
        Offences::default()
            .rows(found!(tx, "queries/verify/fence.sql"))
            .against("I6", "the attempt that ended a step is its last"),
        Offences::default()
            .rows(found!(tx, "queries/verify/accepted.sql", &accepted))
            .against("I7", "what was accepted is there, once"),
        ruled
            .ends
            .rows(found!(tx, "queries/verify/ended.sql", request.at_rest))
            .against("I8", at_rest(request.at_rest)),
        Offences::default()
            .rows(found!(tx, "queries/verify/namespaces.sql"))
            .against("I11", "all of a task is in its namespace"),
    ])
}

fn at_rest(at_rest: bool) -> &'static str {
    if at_rest { "everything has ended" } else { "nothing is stuck between living and ended" }
}

impl Offences {
    fn with(mut self, other: Offences) -> Self {
        self.violations += other.violations;
        self.named.extend(other.named);
        self
    }
}

/// A transaction whose statements all see the same, and may read whole tables.
async fn snapshot(pool: &PgPool) -> Result<Tx, StoreError> {
    let mut tx = pool.begin().await?;
    sqlx::query!("set transaction isolation level repeatable read, read only")
        .execute(&mut *tx)
        .await?;
    // The connections of a node are made for looking up single rows.
    sqlx::query!(
        "select set_config(name, setting, true)
         from (values ('statement_timeout', '10min'), ('enable_seqscan', 'on'),
                      ('idle_in_transaction_session_timeout', '10min'),
                      ('enable_hashjoin', 'on'), ('enable_mergejoin', 'on')) as s(name, setting)"
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(tx)
}
