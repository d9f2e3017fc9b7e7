use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;
use tasker_messages::TemplateId;

use crate::pool;

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A statement failed; its transaction changed nothing.
    #[error("database: {0}")]
    Statement(#[source] sqlx::Error),
    /// The connection was lost during COMMIT: the transaction may or may not have happened. Every
    /// transaction can be run again.
    #[error("database: the result of a COMMIT is unknown: {0}")]
    CommitUnknown(#[source] sqlx::Error),
    /// The database is on another machine and its URL does not ask for TLS.
    #[error(
        "database.url: {host} is another machine, and without TLS all between could read passwords \
         and tasks: add ?sslmode=verify-full (and sslrootcert=FILE for a certificate authority of your \
         own), or set database.dangerously_allow_plaintext if nobody else is on that network"
    )]
    Plaintext {
        /// Where it is.
        host: String,
    },
    /// The schema could not be brought up to date.
    #[error("migration: {0}")]
    Migrate(#[from] MigrateError),
    /// Somebody has used a table for so long that it could not be changed.
    #[error(
        "migration: a table or the migrator's lock was in use whenever it was tried. If no other `tasker \
         migrate` is at work, it is in the way of a transaction; the oldest one is that of process {pid} \
         ({name}), {seconds} s old. Wait for it, or end it, and run `tasker migrate` again"
    )]
    Locked {
        /// Its process of Postgres.
        pid: i32,
        /// What it calls itself.
        name: String,
        /// Since when it goes on.
        seconds: i64,
    },
    /// The schema is older than this build can do with.
    #[error(
        "the database has schema version {applied}, and this build needs {required}: run `tasker migrate` \
         of this release first, with `--contract` if it says that a step is left"
    )]
    OldSchema {
        /// The last step that has been applied.
        applied: i64,
        /// The last step that must have been.
        required: i64,
    },
    /// The schema has lost what this build needs.
    #[error(
        "the database was migrated by a later release and has lost what this one needs (it is for builds \
         that know schema version {needs}, this one knows {known}): use a later release"
    )]
    NewSchema {
        /// The last step that a build must know.
        needs: i64,
        /// The last step that this one knows.
        known: i64,
    },
    /// A stored template cannot be read by this version.
    #[error("stored template {id} cannot be read: {problem}")]
    Template {
        /// The template.
        id: TemplateId,
        /// The first thing that is wrong with it.
        problem: String,
    },
    /// A stored value cannot be read by this version.
    #[error("stored {what} cannot be read: {problem}")]
    Stored {
        /// What kind of value.
        what: &'static str,
        /// Why not.
        problem: String,
    },
}

/// SQLSTATE classes and codes that say "not now" rather than "not like this".
const TRANSIENT: [&str; 6] = ["40", "53", "57", "58", "08", "55P03"];

/// "cached plan must not change result type": a migration has changed a column that a statement returns,
/// after this connection had prepared it. The code is that of everything that Postgres cannot do, so the
/// function of Postgres that says so is looked at as well (`plancache.c`).
const CHANGED_RESULT: (&str, &str) = ("0A000", "RevalidateCachedQuery");

fn has_changed_result(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|e| (e.code(), e.routine()) == (CHANGED_RESULT.0, Some(CHANGED_RESULT.1)))
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if has_changed_result(&error) {
            pool::forget_statements();
        }
        StoreError::Statement(error)
    }
}

impl StoreError {
    /// A stored value that does not parse.
    pub(crate) fn stored(what: &'static str, problem: impl ToString) -> Self {
        StoreError::Stored { what, problem: problem.to_string() }
    }

    /// Whether the same call may succeed later: connections, locks, deadlocks, restarts.
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::CommitUnknown(_) => true,
            StoreError::Statement(error) => is_transient(error),
            _ => false,
        }
    }

    /// Whether a lock was not had in time.
    pub fn is_lock_timeout(&self) -> bool {
        matches!(self.sqlstate().as_deref(), Some("55P03"))
    }

    /// Whether somebody else holds a lock, and may give it back.
    pub(crate) fn is_in_the_way(&self) -> bool {
        matches!(self.sqlstate().as_deref(), Some("55P03" | "40P01"))
    }

    /// Whether two transactions got in each other's way, or the schema changed between preparing a statement
    /// and running it, so that running again at once is right.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.sqlstate().as_deref(), Some("40P01" | "40001"))
            || matches!(self, StoreError::Statement(error) if has_changed_result(error))
    }

    fn sqlstate(&self) -> Option<String> {
        let error = match self {
            StoreError::Statement(error)
            | StoreError::Migrate(
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
            ) => error,
            _ => return None,
        };
        error.as_database_error()?.code().map(|code| code.into_owned())
    }
}

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        _ if has_changed_result(error) => true,
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| TRANSIENT.iter().any(|prefix| code.starts_with(prefix)))
        }
        _ => false,
    }
}
