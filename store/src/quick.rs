//! Connections for single statements that somebody waits for.
//!
//! A pool asks a connection that comes back whether it is well, which is a round trip and two
//! wake-ups for each statement. These are kept instead: whoever has used one without an error gives
//! it back as it is, and any other goes to the pool, which looks after it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgConnection, PgPool, Postgres};

use crate::StoreError;
use crate::pool::{MAX_UNTESTED, is_outdated};

/// The connections and those of them that nobody uses.
#[derive(Debug, Clone)]
pub(crate) struct Quick {
    pool: PgPool,
    idle: Arc<Mutex<Vec<Idle>>>,
    most_idle: usize,
}

#[derive(Debug)]
struct Idle {
    connection: PoolConnection<Postgres>,
    /// Since when it is out of the pool.
    taken: Instant,
    since: Instant,
}

/// A connection for one statement, or a few in a row. Dropped without [`Lent::give_back`], as after
/// an error, it goes to the pool.
pub(crate) struct Lent {
    connection: PoolConnection<Postgres>,
    taken: Instant,
    home: Quick,
}

impl Quick {
    /// Keeps so many connections of a pool at the most; whoever else uses it has the rest.
    pub(crate) fn new(pool: PgPool, most_idle: usize) -> Self {
        Self { pool, idle: Arc::default(), most_idle }
    }

    /// One that was used last, or one from the pool.
    pub(crate) async fn lend(&self) -> Result<Lent, StoreError> {
        while let Some(Idle { mut connection, taken, since }) = self.last() {
            // Others may be outdated as well; those go to the pool, which closes them.
            if is_outdated(taken.elapsed()) {
                continue;
            }
            if since.elapsed() < MAX_UNTESTED || connection.ping().await.is_ok() {
                return Ok(Lent { connection, taken, home: self.clone() });
            }
            break;
        }
        let connection = self.pool.acquire().await?;
        Ok(Lent { connection, taken: Instant::now(), home: self.clone() })
    }

    fn last(&self) -> Option<Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Closes all of them.
    pub(crate) async fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.pool.close().await;
    }
}

impl Lent {
    /// It was used without an error.
    pub(crate) fn give_back(self) {
        let Self { connection, taken, home } = self;
        let idle = Idle { connection, taken, since: Instant::now() };
        let mut others = home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if others.len() < home.most_idle {
            others.push(idle);
        }
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
