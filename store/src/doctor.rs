//! What the rows say about the health of a cluster.

use std::time::Duration;

use uuid::Uuid;

use crate::{Store, StoreError};

/// Something that should have gone on by itself, where it waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Late {
    /// What it is.
    pub kind: LateKind,
    /// Where.
    pub namespace: String,
    /// On which queue; empty if on none.
    pub queue: String,
    /// How often, up to [`Late::MOST`].
    pub count: u64,
    /// How long the longest has waited.
    pub longest: Duration,
    /// One of them: a step or a batch.
    pub example: Uuid,
}

impl Late {
    /// Of each kind so many are looked at.
    pub const MOST: u32 = 10_000;
}

/// What should have gone on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LateKind {
    /// Ready steps that were not published.
    Unsent,
    /// Steps whose retry is due.
    Retry,
    /// Sealed batches whose members nobody publishes.
    Unpublished,
    /// Batches without a member left that were not converged.
    Unconverged,
    /// Batches whose members are not all written.
    Expanding,
    /// Steps whose worker has gone silent, and whose message has not come back.
    Lease,
}

impl LateKind {
    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "unsent" => Self::Unsent,
            "retry" => Self::Retry,
            "unpublished" => Self::Unpublished,
            "unconverged" => Self::Unconverged,
            "expanding" => Self::Expanding,
            "lease" => Self::Lease,
            _ => return None,
        })
    }
}

impl Store {
    /// What should have gone on by itself and has not.
    pub async fn find_late(&self) -> Result<Vec<Late>, StoreError> {
        let rows = sqlx::query_file!("queries/doctor/late.sql", i64::from(Late::MOST))
            .fetch_all(&self.api)
            .await?;
        let late = rows.into_iter().map(|row| {
            Some(Late {
                kind: LateKind::read(&row.kind)?,
                namespace: row.namespace,
                queue: row.queue,
                count: u64::try_from(row.count).unwrap_or(0),
                longest: Duration::try_from_secs_f64(row.seconds).unwrap_or_default(),
                example: row.example,
            })
        });
        Ok(late.flatten().collect())
    }
}
