use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use serde_json::Value;
use serde_json::value::to_raw_value;
use tasker_messages::{
    AppendCursors, BatchId, Checkpoint, CheckpointVerdict, CursorConfig, CursorsAppended,
    GetCheckpoint, GetMembers, GetResult, MemberResult, MembersPage, SaveCheckpoint,
    StoredCheckpoint, StoredResult, code as wire_code,
};

use crate::{Progress, StepBackend, StepError};

/// What an orchestrator would know, in memory.
pub(super) struct MemoryBackend {
    pub(super) batches: BTreeMap<BatchId, Vec<MemberResult>>,
    pub(super) results: BTreeMap<String, Value>,
    /// The server's own limit of a page of members.
    pub(super) page_limit: u32,
    /// Whether cursors are refused because another attempt is current.
    pub(super) superseded: bool,
    pub(super) recorded: Mutex<Recorded>,
}

/// What the handler told the backend.
#[derive(Default)]
pub(super) struct Recorded {
    pub(super) pages: u32,
    pub(super) cursors: Vec<CursorConfig>,
    pub(super) progress: Vec<Progress>,
    pub(super) checkpoints: Vec<Checkpoint>,
}

impl MemoryBackend {
    pub(super) fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, request: &GetMembers) -> Result<MembersPage, StepError> {
        let all = self.batches.get(&request.batch_id).ok_or_else(|| {
            let message = format!("no batch {}", request.batch_id);
            StepError::permanent(wire_code::NOT_FOUND, message)
        })?;
        let from = request.from as usize;
        let limit = request.limit.min(self.page_limit).max(1) as usize;
        let members: Vec<_> = all.iter().skip(from).take(limit).cloned().collect();
        let end = from + members.len();
        let next = (end < all.len()).then_some(end as u32);
        Ok(MembersPage { members, next })
    }

    fn stored(&self, request: &GetResult) -> Result<StoredResult, StepError> {
        let result = self.results.get(&request.name).map(to_raw_value).transpose()?;
        Ok(StoredResult { result })
    }

    fn append(&self, request: AppendCursors) -> Result<CursorsAppended, StepError> {
        if self.superseded {
            return Ok(CursorsAppended { current: false });
        }
        let mut recorded = self.recorded();
        if request.page != recorded.pages {
            let message = format!("page {} after {} pages", request.page, recorded.pages);
            return Err(StepError::permanent(wire_code::INVALID_REQUEST, message));
        }
        recorded.pages += 1;
        recorded.cursors.extend(request.cursors);
        Ok(CursorsAppended { current: true })
    }
}

impl MemoryBackend {
    fn save(&self, request: SaveCheckpoint) -> CheckpointVerdict {
        if self.superseded {
            return CheckpointVerdict::Superseded;
        }
        let mut recorded = self.recorded();
        let last = recorded.checkpoints.last().map(|last| last.items_processed);
        if last.is_some_and(|last| request.checkpoint.items_processed <= last) {
            return CheckpointVerdict::NotAhead;
        }
        recorded.checkpoints.push(request.checkpoint);
        CheckpointVerdict::Saved
    }
}

impl StepBackend for MemoryBackend {
    fn members(&self, request: GetMembers) -> BoxFuture<'_, Result<MembersPage, StepError>> {
        ready(self.page(&request)).boxed()
    }

    fn result(&self, request: GetResult) -> BoxFuture<'_, Result<StoredResult, StepError>> {
        ready(self.stored(&request)).boxed()
    }

    fn append_cursors(
        &self,
        request: AppendCursors,
    ) -> BoxFuture<'_, Result<CursorsAppended, StepError>> {
        ready(self.append(request)).boxed()
    }

    fn save_checkpoint(
        &self,
        request: SaveCheckpoint,
    ) -> BoxFuture<'_, Result<CheckpointVerdict, StepError>> {
        ready(Ok(self.save(request))).boxed()
    }

    fn checkpoint(&self, _: GetCheckpoint) -> BoxFuture<'_, Result<StoredCheckpoint, StepError>> {
        let checkpoint = self.recorded().checkpoints.last().cloned();
        ready(Ok(StoredCheckpoint { checkpoint })).boxed()
    }

    fn report_progress(&self, progress: Progress) {
        self.recorded().progress.push(progress);
    }
}
