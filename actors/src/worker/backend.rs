use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tasker_bus::{Bus, RequestError};
use tasker_messages::subject::Request;
use tasker_messages::{
    AppendCursors, CheckpointVerdict, CursorsAppended, GetCheckpoint, GetMembers, GetResult,
    MembersPage, Namespace, SaveCheckpoint, StoredCheckpoint, StoredResult, code,
};
use tasker_sdk::{BoxFuture, StepBackend, StepError};
use tokio::time::Instant;

use super::retry::BackOff;

/// How long a running step asks again before it gives up. Longer than the restart of a server.
const PATIENCE: Duration = Duration::from_secs(60);

/// What running steps of one namespace read and write over the bus.
pub(crate) struct BusBackend {
    bus: Bus,
    timeout: Duration,
    members: String,
    result: String,
    cursors: String,
    save: String,
    resume: String,
}

impl BusBackend {
    pub(crate) fn new(bus: Bus, namespace: &Namespace, timeout: Duration) -> Self {
        Self {
            bus,
            timeout,
            members: Request::Members.subject(namespace),
            result: Request::Result.subject(namespace),
            cursors: Request::AppendCursors.subject(namespace),
            save: Request::SaveCheckpoint.subject(namespace),
            resume: Request::GetCheckpoint.subject(namespace),
        }
    }

    /// Asks until there is an answer. All of these requests are idempotent.
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: &str,
        question: &Q,
    ) -> Result<A, StepError> {
        let until = Instant::now() + PATIENCE;
        let mut back_off = BackOff::of_requests();
        loop {
            match self.bus.request(subject.to_owned(), question, self.timeout).await {
                Ok(answer) => return Ok(answer),
                Err(RequestError::Refused(refusal)) if !refusal.retryable => {
                    return Err(StepError::permanent(refusal.code, refusal.message));
                }
                Err(error) if Instant::now() >= until || !error.is_retryable() => {
                    return Err(StepError::retryable(code::UNAVAILABLE, error.to_string()));
                }
                Err(error) => {
                    tracing::debug!(subject, %error, "asking again");
                    back_off.pause().await;
                }
            }
        }
    }
}

impl StepBackend for BusBackend {
    fn members(&self, request: GetMembers) -> BoxFuture<'_, Result<MembersPage, StepError>> {
        Box::pin(async move { self.ask(&self.members, &request).await })
    }

    fn result(&self, request: GetResult) -> BoxFuture<'_, Result<StoredResult, StepError>> {
        Box::pin(async move { self.ask(&self.result, &request).await })
    }

    fn append_cursors(
        &self,
        request: AppendCursors,
    ) -> BoxFuture<'_, Result<CursorsAppended, StepError>> {
        Box::pin(async move { self.ask(&self.cursors, &request).await })
    }

    fn save_checkpoint(
        &self,
        request: SaveCheckpoint,
    ) -> BoxFuture<'_, Result<CheckpointVerdict, StepError>> {
        Box::pin(async move { self.ask(&self.save, &request).await })
    }

    fn checkpoint(
        &self,
        request: GetCheckpoint,
    ) -> BoxFuture<'_, Result<StoredCheckpoint, StepError>> {
        Box::pin(async move { self.ask(&self.resume, &request).await })
    }
}
