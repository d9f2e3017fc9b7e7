//! The tokens that are accepted, kept in memory: requests ask no database, and neither do those who
//! guess.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use tasker_messages::{Refusal, TokenId, code};
use tasker_store::{ApiToken, KnownToken, Store};
use tokio::sync::{Mutex as Turn, Semaphore};

use crate::http::problem::ApiError;

/// All tokens, as of a moment, and those that were asked for and are not among them.
#[derive(Debug)]
pub(super) struct Tokens {
    store: Store,
    max_age: Duration,
    known: RwLock<Arc<Known>>,
    /// Whoever reads the table, and when that last began.
    reading: Turn<Option<Instant>>,
    strangers: Mutex<HashSet<TokenId>>,
    askers: Semaphore,
}

#[derive(Debug, Default)]
struct Known {
    tokens: HashMap<TokenId, Arc<KnownToken>>,
    /// When they were asked for; whatever was made or revoked before is seen.
    asked_at: Option<Instant>,
}

/// The table is not read more often than this, whoever asks for whatever.
const BETWEEN_READS: Duration = Duration::from_millis(250);
/// Requests with ids that were never heard of which wait for the next read; more are refused.
const MAX_ASKERS: usize = 256;
/// Ids that are known not to be there. Ids are never made twice, so that nothing is wrong about
/// keeping them; forgetting all of them costs a read.
const MAX_STRANGERS: usize = 4_096;

impl Tokens {
    pub(super) fn new(store: Store, max_age: Duration) -> Self {
        Self {
            store,
            max_age,
            known: RwLock::default(),
            reading: Turn::default(),
            strangers: Mutex::default(),
            askers: Semaphore::new(MAX_ASKERS),
        }
    }

    /// The id of the token, if it was accepted when the tokens were last looked at.
    pub(super) fn recognise(&self, token: &ApiToken) -> Option<TokenId> {
        accepted(&self.current(), token).map(|found| found.id)
    }

    /// The token, if it is accepted.
    ///
    /// # Errors
    /// If the database does not answer, or too many ask for tokens that nobody has heard of.
    pub(super) async fn find(
        self: &Arc<Self>,
        token: &ApiToken,
    ) -> Result<Option<Arc<KnownToken>>, ApiError> {
        let arrived = Instant::now();
        let mut known = self.current();
        let age = known.asked_at.map(|at| arrived.saturating_duration_since(at));
        if age.is_none_or(|age| age > self.max_age) {
            known = self.read_since(arrived.checked_sub(self.max_age)).await?;
        } else if age.is_some_and(|age| age > self.max_age / 2) {
            self.read_ahead();
        }
        if known.tokens.contains_key(&token.id()) || self.is_stranger(token.id()) {
            return Ok(accepted(&known, token));
        }
        // It may be new. Whoever guesses waits here.
        let Ok(_permit) = self.askers.try_acquire() else {
            let message = "too many unknown tokens; try again";
            return Err(Refusal::retry(code::TOO_MANY_REQUESTS, message).into());
        };
        known = self.read_since(Some(arrived)).await?;
        if !known.tokens.contains_key(&token.id()) {
            self.note_stranger(token.id());
        }
        Ok(accepted(&known, token))
    }

    fn current(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tokens that were asked for at this moment or later; one reads for all who wait.
    async fn read_since(&self, since: Option<Instant>) -> Result<Arc<Known>, ApiError> {
        let mut begun_at = self.reading.lock().await;
        let known = self.current();
        if known.asked_at.is_some() && known.asked_at >= since {
            return Ok(known);
        }
        if let Some(begun_at) = *begun_at {
            tokio::time::sleep_until((begun_at + BETWEEN_READS).into()).await;
        }
        let asked_at = Instant::now();
        *begun_at = Some(asked_at);
        let tokens = self.store.load_tokens().await?;
        let tokens = tokens.into_iter().map(|token| (token.id, Arc::new(token))).collect();
        let known = Arc::new(Known { tokens, asked_at: Some(asked_at) });
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&known);
        Ok(known)
    }

    /// Reads the table before it has to be waited for.
    fn read_ahead(self: &Arc<Self>) {
        if self.reading.try_lock().is_err() {
            return;
        }
        let tokens = Arc::clone(self);
        let since = Instant::now().checked_sub(self.max_age / 2);
        // An error is met again, and told, by whoever has to wait.
        tokio::spawn(async move { tokens.read_since(since).await.is_ok() });
    }

    fn is_stranger(&self, id: TokenId) -> bool {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn note_stranger(&self, id: TokenId) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.len() >= MAX_STRANGERS {
            strangers.clear();
        }
        strangers.insert(id);
    }
}

fn accepted(known: &Known, token: &ApiToken) -> Option<Arc<KnownToken>> {
    let found = known.tokens.get(&token.id())?;
    found.accepts(token, SystemTime::now()).then(|| Arc::clone(found))
}
