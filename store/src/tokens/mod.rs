//! Tokens of the HTTP API: made, listed and revoked by hand, and read by every orchestrator.

mod secret;

use std::time::SystemTime;

use tasker_messages::{Namespace, Refusal, Role, Scope, TokenId, TokenState, TokenView, code};
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::secret::ApiToken;
use crate::views::{parse, rfc3339};
use crate::{Store, StoreError};

/// A token that is to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it is called in the audit trail.
    pub name: String,
    /// What it may be used for.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// How many days it is accepted.
    pub days: u32,
    /// Who makes it.
    pub by: String,
}

impl NewToken {
    /// The longest life of a token.
    pub const MOST_DAYS: u32 = 3_660;
}

/// A token that is accepted, as orchestrators keep it in memory.
#[derive(Debug, Clone)]
pub struct KnownToken {
    /// Its id.
    pub id: TokenId,
    /// What it is called in the audit trail.
    pub name: String,
    /// What it may be used for.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    hash: [u8; 32],
    expires_at: OffsetDateTime,
}

impl KnownToken {
    /// Whether this is the token and its time is not over.
    pub fn accepts(&self, token: &ApiToken, now: SystemTime) -> bool {
        token.has_hash(&self.hash) && OffsetDateTime::from(now) < self.expires_at
    }
}

/// Most tokens that are accepted at a time: every orchestrator keeps all of them in memory.
const MOST_TOKENS: u32 = 10_000;

/// One row of `queries/tokens/*.sql`.
struct Row {
    id: Uuid,
    name: String,
    role: String,
    namespaces: Option<Vec<String>>,
    created_by: String,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    revoked_at: Option<OffsetDateTime>,
    expired: bool,
}

impl Row {
    fn view(self) -> Result<TokenView, StoreError> {
        let state = match (self.revoked_at, self.expired) {
            (Some(_), _) => TokenState::Revoked,
            (None, true) => TokenState::Expired,
            (None, false) => TokenState::Active,
        };
        Ok(TokenView {
            id: TokenId::from_uuid(self.id),
            name: self.name,
            role: parse("role", &self.role)?,
            namespaces: self.namespaces.as_deref().map(namespaces).transpose()?,
            state,
            created_at: rfc3339(self.created_at),
            created_by: self.created_by,
            expires_at: rfc3339(self.expires_at),
            revoked_at: self.revoked_at.map(rfc3339),
        })
    }
}

fn namespaces(names: &[String]) -> Result<Vec<Namespace>, StoreError> {
    names.iter().map(|name| parse("namespace", name)).collect()
}

impl Store {
    /// Makes a token and records who did it. Its secret is in the answer and nowhere else. Names and
    /// days are checked by the caller.
    pub async fn create_token(
        &self,
        token: &ApiToken,
        new: &NewToken,
    ) -> Result<Result<TokenView, Refusal>, StoreError> {
        let names = new.scope.names();
        let made = sqlx::query_file_as!(
            Row,
            "queries/tokens/create.sql",
            token.id().as_uuid(),
            new.name,
            &token.hash(),
            new.role.as_str(),
            names.as_deref(),
            new.by,
            i32::try_from(new.days).unwrap_or(i32::MAX),
            i64::from(MOST_TOKENS),
        )
        .fetch_optional(&self.api)
        .await;
        match made {
            Ok(Some(row)) => Ok(Ok(row.view()?)),
            Ok(None) => {
                let message =
                    format!("{MOST_TOKENS} tokens are accepted, which is the most; revoke some");
                Ok(Err(Refusal::new(code::TOO_LARGE, message)))
            }
            Err(sqlx::Error::Database(error)) if error.constraint() == Some("api_tokens_name") => {
                let message = format!("there is a token `{}`; revoke it first", new.name);
                Ok(Err(Refusal::new(code::TOKEN_EXISTS, message)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Tokens, the newest first; with `all`, also those that are not accepted any more.
    pub async fn list_tokens(&self, all: bool, limit: u32) -> Result<Vec<TokenView>, StoreError> {
        let rows = sqlx::query_file_as!(Row, "queries/tokens/list.sql", all, i64::from(limit))
            .fetch_all(&self.api)
            .await?;
        rows.into_iter().map(Row::view).collect()
    }

    /// Revokes a token, named by id or name, and records who did it. `None` if there is none.
    pub async fn revoke_token(
        &self,
        named: &str,
        by: &str,
    ) -> Result<Option<TokenView>, StoreError> {
        let id = named.parse::<Uuid>().ok();
        let row = sqlx::query_file_as!(Row, "queries/tokens/revoke.sql", id, named, by)
            .fetch_optional(&self.api)
            .await?;
        row.map(Row::view).transpose()
    }

    /// Every token that is accepted.
    pub async fn load_tokens(&self) -> Result<Vec<KnownToken>, StoreError> {
        let rows = sqlx::query!(
            "select id, name, role, namespaces, hash, expires_at from tasker.api_tokens
             where revoked_at is null and expires_at > now()
             order by id limit $1",
            // Some were made at the same time.
            i64::from(2 * MOST_TOKENS),
        )
        .fetch_all(&self.api)
        .await?;
        let mut known = Vec::with_capacity(rows.len());
        for row in rows {
            let scope = match &row.namespaces {
                Some(names) => Scope::Only(namespaces(names)?),
                None => Scope::All,
            };
            let hash = row.hash.try_into();
            known.push(KnownToken {
                id: TokenId::from_uuid(row.id),
                name: row.name,
                role: parse("role", &row.role)?,
                scope,
                hash: hash.map_err(|_| StoreError::stored("token", "its hash is cut off"))?,
                expires_at: row.expires_at,
            });
        }
        Ok(known)
    }
}
