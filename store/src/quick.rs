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
use crate::pool::MAX_UNTESTED;

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
    since: Instant,
}

/// A connection for one statement, or a few in a row. Dropped without [`Lent::give_back`], as after
/// an error, it goes to the pool.
pub(crate) struct Lent {
    connection: PoolConnection<Postgres>,
    home: Quick,
}

impl Quick {
    /// Keeps so many connections of a pool at the most; whoever else uses it has the rest.
    pub(crate) fn new(pool: PgPool, most_idle: usize) -> Self {
        Self { pool, idle: Arc::default(), most_idle }
    }

    /// One that was used last, or one from the pool.
    pub(crate) async fn lend(&self) -> Result<Lent, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(Idle { mut connection, since }) = idle {
            let is_well = since.elapsed() < MAX_UNTESTED || connection.ping().await.is_ok();
            if is_well {
                return Ok(Lent { connection, home: self.clone() });
            }
        }
        Ok(Lent { connection: self.pool.acquire().await?, home: self.clone() })
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
        let Self { connection, home } = self;
        let idle = Idle { connection, since: Instant::now() };
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
