//! The schema, step by step, and which builds can work with it.
//!
//! Most steps only add: nodes of the release before go on while they are applied, and after that. A step
//! that takes away what older nodes use says in its name which step a node must know to do without it:
//! `0015_contract_0012_drop_sent_seq.sql`. The name is stored when it is applied, so that an older build,
//! which knows nothing of the step, reads there whether it can go on.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sqlx::migrate::{Migrate, Migration, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, Postgres};
use tasker_config::Database;

use crate::{Store, StoreError, address};

/// Steps of a later release may have been applied: whether this build can do with them is not asked of
/// the migrator, but of [`Schema::check`].
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!();
    migrations.set_ignore_missing(true);
    migrations
});

/// Where the migrator keeps its list of steps: it does not say in which schema. By default a role whose name
/// is that of a schema would look there first, once that schema has been made.
const LIST_IN: [(&str, &str); 1] = [("search_path", "public")];
/// How long a step waits for a table. Whoever wants the same table waits behind it meanwhile, which must
/// be shorter than `database.lock_timeout_ms`.
const LOCK_WAIT: &str = "set lock_timeout = '1s'";
/// A step outside of a transaction builds an index beside those who use the table, and waits for the end
/// of all transactions that are older: it holds nobody up, and is not to be broken off.
const NO_LOCK_WAIT: &str = "set lock_timeout = 0";
/// Between two tries, for those who have waited to go on.
const PAUSE: Duration = Duration::from_secs(2);
/// How long it is tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// The schema of a database, and the one that this build is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The last step that has been applied; zero if none has.
    pub applied: i64,
    /// The last step that this build knows.
    pub known: i64,
    /// The last step that this build cannot do without.
    pub required: i64,
    /// The last step that a build must know to work with this database.
    pub needs: i64,
}

impl Schema {
    /// Whether this build can work with it.
    ///
    /// # Errors
    /// If it is too old or too new, and what to do.
    pub fn check(&self) -> Result<(), StoreError> {
        let Self { applied, known, required, needs } = *self;
        if needs > known {
            return Err(StoreError::NewSchema { needs, known });
        }
        if applied < required {
            return Err(StoreError::OldSchema { applied, required });
        }
        Ok(())
    }

    /// What follows from the steps that have been applied.
    fn of(migrations: &Migrator, applied: &[AppliedStep]) -> Self {
        let steps = || migrations.iter();
        let required = steps().filter(|step| needed_by(&step.description).is_none());
        Self {
            applied: applied.iter().map(|(version, _)| *version).max().unwrap_or(0),
            known: steps().map(|step| step.version).max().unwrap_or(0),
            required: required.map(|step| step.version).max().unwrap_or(0),
            needs: applied.iter().filter_map(|(_, name)| needed_by(name)).max().unwrap_or(0),
        }
    }
}

/// Number and name.
type AppliedStep = (i64, String);

/// Which step a node must know that works with a database after a contract step.
fn needed_by(name: &str) -> Option<i64> {
    name.strip_prefix("contract ")?.split(' ').next()?.parse().ok()
}

impl Store {
    /// Which steps have been applied, and whether this build fits them.
    pub async fn schema(&self) -> Result<Schema, StoreError> {
        let mut connection = self.api.acquire().await?;
        Ok(Schema::of(&MIGRATIONS, &applied_steps(&mut connection).await?))
    }
}

async fn applied_steps(connection: &mut PgConnection) -> Result<Vec<AppliedStep>, StoreError> {
    let there: Option<bool> =
        sqlx::query_scalar("select to_regclass('public._sqlx_migrations') is not null")
            .fetch_one(&mut *connection)
            .await?;
    if there != Some(true) {
        return Ok(Vec::new());
    }
    let steps = sqlx::query_as(
        "select version, description from public._sqlx_migrations where success order by version",
    );
    Ok(steps.fetch_all(connection).await?)
}

/// What [`migrate`] has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The last step that is applied.
    pub applied: i64,
    /// The first contract step, if that and what follows has been left out, and which step all nodes must
    /// know before it is applied.
    pub held_back: Option<(i64, i64)>,
}

/// Brings the schema of a database up to date, while nodes work with it. Contract steps are applied to a
/// database that is new, or if it is asked for them.
///
/// # Errors
/// If the URL is invalid, the database cannot be reached, has lost what this build needs, or a table was
/// in use for a minute.
pub async fn migrate(settings: &Database, contract: bool) -> Result<Migrated, StoreError> {
    migrate_with(&MIGRATIONS, settings, contract).await
}

pub(crate) async fn migrate_with(
    migrations: &Migrator,
    settings: &Database,
    contract: bool,
) -> Result<Migrated, StoreError> {
    let options = address::options(settings)?.application_name("tasker migrate").options(LIST_IN);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(30))
        .connect_with(options)
        .await?;
    let begun = Instant::now();
    // Whether contract steps are applied as well. Known from the first look at the database on: one that
    // was new then is not in use when a step is tried again.
    let mut everything = contract.then_some(true);
    let migrated = loop {
        let mut connection = pool.acquire().await?;
        let result = migrate_once(migrations, &mut connection, &mut everything).await;
        let result = match result {
            Err(error) if error.is_in_the_way() && begun.elapsed() < PATIENCE => Ok(None),
            Err(error) if error.is_in_the_way() => Err(locked(&mut connection, error).await),
            result => result.map(Some),
        };
        close(connection).await;
        if let Some(migrated) = result? {
            break migrated;
        }
        tokio::time::sleep(PAUSE).await;
    };
    pool.close().await;
    Ok(migrated)
}

/// The lock of the migrator goes with the connection.
async fn close(connection: PoolConnection<Postgres>) {
    // Whoever is gone holds no lock either.
    let _gone = connection.close().await;
}

async fn migrate_once(
    migrations: &Migrator,
    connection: &mut PgConnection,
    everything: &mut Option<bool>,
) -> Result<Migrated, StoreError> {
    sqlx::query(LOCK_WAIT).execute(&mut *connection).await?;
    // Before anything is read, so that two of these go one after the other.
    connection.lock().await?;
    let applied = applied_steps(connection).await?;
    let schema = Schema::of(migrations, &applied);
    if schema.needs > schema.known {
        schema.check()?;
    }
    let is_pending =
        |step: &&Migration| !applied.iter().any(|(version, _)| *version == step.version);
    let everything = *everything.get_or_insert(applied.is_empty());
    let mut upto = schema.known;
    let mut held_back = None;
    for step in migrations.iter().filter(is_pending) {
        if let Some(needs) = needed_by(&step.description).filter(|_| !everything) {
            upto = step.version - 1;
            held_back = Some((step.version, needs));
            break;
        }
        let wait = if step.no_tx { NO_LOCK_WAIT } else { LOCK_WAIT };
        sqlx::query(wait).execute(&mut *connection).await?;
        migrations.run_to(step.version, &mut *connection).await?;
    }
    // Also where nothing was left to do: what has been applied is compared with what this build has.
    migrations.run_to(upto, &mut *connection).await?;
    Ok(Migrated { applied: upto.max(schema.applied), held_back })
}

/// Says who may have been in the way for so long.
async fn locked(connection: &mut PgConnection, error: StoreError) -> StoreError {
    let oldest = sqlx::query_as(
        "select pid, coalesce(nullif(application_name, ''), 'no name'),
                extract(epoch from clock_timestamp() - xact_start)::bigint
         from pg_stat_activity
         where xact_start is not null and pid <> pg_backend_pid() and datname = current_database()
             and backend_type = 'client backend' and application_name <> 'tasker migrate'
         order by xact_start limit 1",
    );
    match oldest.fetch_optional(connection).await {
        Ok(Some((pid, name, seconds))) => StoreError::Locked { pid, name, seconds },
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_contract_steps() {
        for (name, expect) in [
            ("contract 0012 drop sent seq", Some(12)),
            ("contract 12", Some(12)),
            ("contract", None),
            ("contract of employment", None),
            ("handed steps", None),
        ] {
            assert_eq!(needed_by(name), expect, "{name}");
        }
    }

    #[test]
    fn a_build_works_with_what_it_knows() {
        let check = |applied, needs, expect: &str| {
            let schema = Schema { applied, known: 12, required: 11, needs };
            let said = schema.check().map_or_else(|error| error.to_string(), |()| String::new());
            assert_eq!(said.is_empty(), expect.is_empty(), "{said}");
            assert!(said.contains(expect), "{said}");
        };
        check(12, 9, "");
        check(11, 0, "");
        check(40, 12, "");
        check(10, 0, "`tasker migrate`");
        check(0, 0, "`tasker migrate`");
        check(40, 13, "later release");
    }
}
