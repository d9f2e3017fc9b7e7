use futures::future::BoxFuture;
use tasker_messages::{
    AppendCursors, CheckpointVerdict, CursorsAppended, GetCheckpoint, GetMembers, GetResult,
    MembersPage, SaveCheckpoint, StepId, StoredCheckpoint, StoredResult,
};

use crate::StepError;

/// Where a running step reads and writes what does not travel with it: the worker's connection to
/// the orchestrator, or memory ([`crate::testing`]).
///
/// Errors should be retryable if asking again may help. Implementations repeat lost requests
/// themselves; all of these are idempotent.
pub trait StepBackend: Send + Sync {
    /// Reads a page of a batch's members.
    fn members(&self, request: GetMembers) -> BoxFuture<'_, Result<MembersPage, StepError>>;

    /// Reads the result of one ended step.
    fn result(&self, request: GetResult) -> BoxFuture<'_, Result<StoredResult, StepError>>;

    /// Stores a page of cursors.
    fn append_cursors(
        &self,
        request: AppendCursors,
    ) -> BoxFuture<'_, Result<CursorsAppended, StepError>>;

    /// Stores how far a step has come.
    fn save_checkpoint(
        &self,
        request: SaveCheckpoint,
    ) -> BoxFuture<'_, Result<CheckpointVerdict, StepError>>;

    /// Reads how far a step had come.
    fn checkpoint(
        &self,
        request: GetCheckpoint,
    ) -> BoxFuture<'_, Result<StoredCheckpoint, StepError>>;

    /// Tells people how far a step is. Must not block; may be dropped.
    fn report_progress(&self, progress: Progress) {
        let Progress { step_id, attempt, done, total } = progress;
        tracing::debug!(step.id = %step_id, attempt, done, total, "progress");
    }
}

/// How far a step is, in units of the handler's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The step.
    pub step_id: StepId,
    /// The attempt.
    pub attempt: u32,
    /// What is done.
    pub done: u64,
    /// What there is to do.
    pub total: u64,
}
