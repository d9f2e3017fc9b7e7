use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::ready;
use tasker_messages::{
    AppendCursors, CheckpointVerdict, CursorConfig, CursorsAppended, GetCheckpoint, GetMembers,
    GetResult, MembersPage, RunAnalyzer, SaveCheckpoint, StoredCheckpoint, StoredResult, code,
};
use tasker_sdk::{BoxFuture, StepBackend, StepError};

/// What an analyzer without a step reads and writes: nothing leaves the worker but its answer.
#[derive(Default)]
pub(crate) struct PlanBackend {
    appended: Mutex<Appended>,
}

#[derive(Default)]
struct Appended {
    pages: u32,
    bytes: usize,
    cursors: Vec<CursorConfig>,
}

impl PlanBackend {
    fn appended(&self) -> MutexGuard<'_, Appended> {
        self.appended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ranges that were appended.
    pub(crate) fn take_cursors(&self) -> Vec<CursorConfig> {
        std::mem::take(&mut self.appended().cursors)
    }

    fn append(&self, request: AppendCursors) -> Result<CursorsAppended, StepError> {
        let mut appended = self.appended();
        if request.page != appended.pages {
            let message = format!("page {} after {} pages", request.page, appended.pages);
            return Err(StepError::permanent(code::BATCH_COUNT_MISMATCH, message));
        }
        let bytes = serde_json::to_vec(&request.cursors)?.len();
        let (all, size) =
            (appended.cursors.len() + request.cursors.len(), appended.bytes.saturating_add(bytes));
        if all > RunAnalyzer::MAX_CURSORS || size > RunAnalyzer::MAX_CURSOR_BYTES {
            let message = format!(
                "the analyzer appends more ranges than a plan holds, which is {} or {} bytes; its \
                 step may append more",
                RunAnalyzer::MAX_CURSORS,
                RunAnalyzer::MAX_CURSOR_BYTES
            );
            return Err(StepError::permanent(code::PLAN_NOT_POSSIBLE, message));
        }
        appended.pages += 1;
        appended.bytes = size;
        appended.cursors.extend(request.cursors);
        Ok(CursorsAppended { current: true })
    }
}

/// What only steps behind others read. All results in front of a planned step travel with it.
fn not_there<T: Send + 'static>(what: &str) -> BoxFuture<'static, Result<T, StepError>> {
    let message = format!("a plan has no {what}");
    ready(Err(StepError::permanent(code::PLAN_NOT_POSSIBLE, message))).boxed()
}

impl StepBackend for PlanBackend {
    fn members(&self, _: GetMembers) -> BoxFuture<'_, Result<MembersPage, StepError>> {
        not_there("members of batches")
    }

    fn result(&self, _: GetResult) -> BoxFuture<'_, Result<StoredResult, StepError>> {
        not_there("stored results")
    }

    fn append_cursors(
        &self,
        request: AppendCursors,
    ) -> BoxFuture<'_, Result<CursorsAppended, StepError>> {
        ready(self.append(request)).boxed()
    }

    /// There is no later attempt that would read it.
    fn save_checkpoint(
        &self,
        _: SaveCheckpoint,
    ) -> BoxFuture<'_, Result<CheckpointVerdict, StepError>> {
        ready(Ok(CheckpointVerdict::Saved)).boxed()
    }

    fn checkpoint(&self, _: GetCheckpoint) -> BoxFuture<'_, Result<StoredCheckpoint, StepError>> {
        ready(Ok(StoredCheckpoint { checkpoint: None })).boxed()
    }
}

#[cfg(test)]
mod tests {
    use tasker_messages::StepId;
    use tasker_messages::cursor::create_cursor_configs;
    use uuid::Uuid;

    use super::*;

    fn append(backend: &PlanBackend, page: u32, cursors: Vec<CursorConfig>) -> Result<(), String> {
        let step_id = StepId::from_uuid(Uuid::nil());
        let request = AppendCursors { step_id, attempt: 1, page, cursors };
        backend.append(request).map(drop).map_err(|error| error.code().to_owned())
    }

    #[test]
    fn appended_ranges_are_kept_up_to_a_limit() {
        let backend = PlanBackend::default();
        let page = create_cursor_configs(1_000, 1_000);
        assert_eq!(append(&backend, 0, page.clone()), Ok(()));
        assert_eq!(append(&backend, 0, page.clone()), Err(code::BATCH_COUNT_MISMATCH.to_owned()));
        let mut wide = page[0].clone();
        wide.end_cursor = "x".repeat(RunAnalyzer::MAX_CURSOR_BYTES).into();
        let refused = Err(code::PLAN_NOT_POSSIBLE.to_owned());
        assert_eq!(append(&backend, 1, vec![wide]), refused);
        let many = vec![page[0].clone(); RunAnalyzer::MAX_CURSORS];
        assert_eq!(append(&backend, 1, many), refused);
        // What was refused is not kept.
        assert_eq!(append(&backend, 1, page[..1].to_vec()), Ok(()));
        assert_eq!(backend.take_cursors().len(), 1_001);
    }
}
