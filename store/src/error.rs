use tasker_messages::TemplateId;

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A statement failed; its transaction changed nothing.
    #[error("database: {0}")]
    Statement(#[from] sqlx::Error),
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
    Migrate(#[from] sqlx::migrate::MigrateError),
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

    /// Whether two transactions got in each other's way, so that running again at once is right.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.sqlstate().as_deref(), Some("40P01" | "40001"))
    }

    fn sqlstate(&self) -> Option<String> {
        match self {
            StoreError::Statement(sqlx::Error::Database(error)) => {
                error.code().map(|c| c.into_owned())
            }
            _ => None,
        }
    }
}

fn is_transient(error: &sqlx::Error) -> bool {
    match error {
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
