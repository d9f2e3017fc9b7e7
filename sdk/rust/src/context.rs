use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tasker_messages::{
    AppendCursors, BatchSummary, BatchWorkerInputs, Checkpoint, CursorConfig, Namespace,
    SharedStep, SplitWishes, StepId, StepKind, TaskId, code as wire_code,
};
use tokio::sync::{Mutex, watch};

use crate::{DataRoots, Progress, StepBackend, StepError, code};

/// At most so many ranges travel in one page of cursors.
const CURSORS_PER_PAGE: usize = 1_000;

/// What the worker knows about an attempt.
pub struct ContextParts {
    /// The namespace.
    pub namespace: Namespace,
    /// The task.
    pub task_id: TaskId,
    /// The step.
    pub step_id: StepId,
    /// The step's name.
    pub name: Arc<str>,
    /// The attempt.
    pub attempt: u32,
    /// How much of the retry budget is used up.
    pub tries: u32,
    /// What the step shares with other dispatches of its template step.
    pub shared: Arc<SharedStep>,
    /// The range of a member.
    pub cursor: Option<CursorConfig>,
    /// Turns true when the step should stop.
    pub cancelled: watch::Receiver<bool>,
    /// Where to read and write what does not travel along.
    pub backend: Arc<dyn StepBackend>,
    /// Where files may be read.
    pub files: Arc<DataRoots>,
    /// Whether there is no step, only a question what its analyzer would decide.
    pub is_plan: bool,
}

/// One attempt of one step, as its handler sees it. Cheap to clone.
#[derive(Clone)]
pub struct StepContext {
    inner: Arc<Inner>,
}

struct Inner {
    parts: ContextParts,
    appended: Mutex<Appended>,
    /// The last checkpoint, as far as this attempt knows.
    checkpoint: Mutex<Option<Checkpoint>>,
    /// Whether a request of this attempt carries the idempotency key, or has done so to the end.
    #[cfg(feature = "api")]
    idempotency_key_taken: std::sync::atomic::AtomicBool,
}

/// Pages and ranges that the orchestrator has stored so far.
#[derive(Default)]
struct Appended {
    pages: u32,
    cursors: u32,
    /// Whether a page was sent and nobody knows if it was stored.
    in_doubt: bool,
}

impl StepContext {
    /// Made by the worker, and by [`crate::testing`].
    pub fn new(parts: ContextParts) -> Self {
        let inner = Inner {
            parts,
            appended: Mutex::default(),
            checkpoint: Mutex::default(),
            #[cfg(feature = "api")]
            idempotency_key_taken: false.into(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn last_checkpoint(&self) -> &Mutex<Option<Checkpoint>> {
        &self.inner.checkpoint
    }

    #[cfg(feature = "api")]
    pub(crate) fn idempotency_key_taken(&self) -> &std::sync::atomic::AtomicBool {
        &self.inner.idempotency_key_taken
    }

    pub(crate) fn parts(&self) -> &ContextParts {
        &self.inner.parts
    }

    /// The task.
    pub fn task_id(&self) -> TaskId {
        self.parts().task_id
    }

    /// The step.
    pub fn step_id(&self) -> StepId {
        self.parts().step_id
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.parts().namespace
    }

    /// The step's name; a member's is `<template>_<batch_id>`.
    pub fn name(&self) -> &str {
        &self.parts().name
    }

    /// What the step is.
    pub fn kind(&self) -> StepKind {
        self.parts().shared.kind
    }

    /// The attempt: the first is 1, later ones are higher, but not always by one.
    pub fn attempt(&self) -> u32 {
        self.parts().attempt
    }

    /// How many attempts were charged to the retry budget before this one.
    pub fn tries(&self) -> u32 {
        self.parts().tries
    }

    /// The retry budget, the first run included.
    pub fn max_attempts(&self) -> u32 {
        self.parts().shared.max_attempts
    }

    /// Whether an earlier attempt has, or may have, run the handler.
    pub fn is_retry(&self) -> bool {
        self.attempt() > 1 || self.tries() > 0
    }

    /// Whether the step ends in error if this attempt fails.
    pub fn is_last_retry(&self) -> bool {
        self.tries().saturating_add(1) >= self.max_attempts()
    }

    /// Whether this run only plans a template: the result is shown to somebody and then forgotten, and
    /// no task, step or batch exists. Runs of batchable steps alone are planned.
    ///
    /// An analyzer must do nothing in a plan that outlives it: no writing, no sending, no locking, no
    /// counting. Whatever it does besides looking at its data belongs behind `if !ctx.is_plan()`.
    /// Ids are made up for the plan, so that an idempotency key of it meets no real one; checkpoints
    /// are forgotten with it.
    pub fn is_plan(&self) -> bool {
        self.parts().is_plan
    }

    /// The same text for every attempt of the step: give it to services that deduplicate.
    pub fn idempotency_key(&self) -> String {
        self.step_id().to_string()
    }

    /// A number that rises with every attempt: give it to stores that refuse lower ones.
    pub fn fencing_token(&self) -> u32 {
        self.attempt()
    }

    /// The context of the task.
    pub fn input_json(&self) -> &Value {
        &self.parts().shared.context
    }

    /// The context of the task as a type.
    ///
    /// # Errors
    /// A permanent [`code::VALIDATION_ERROR`] if it does not fit.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        T::deserialize(self.input_json())
            .map_err(|e| StepError::permanent(code::VALIDATION_ERROR, format!("task context: {e}")))
    }

    /// `handler.initialization` of the template; null if there is none.
    pub fn config(&self) -> &Value {
        &self.parts().shared.config
    }

    /// How the template wishes this batchable step to be split: `batch_size` and `max_workers` of its
    /// `batch_config`, and the step whose instances run the batches. `None` for a step of another type.
    pub fn split_wishes(&self) -> Option<&SplitWishes> {
        self.parts().shared.split.as_ref()
    }

    /// `handler.initialization` of the template as a type; none counts as `{}`.
    ///
    /// # Errors
    /// A permanent [`code::CONFIG_INVALID`] if it does not fit.
    pub fn config_as<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        let parsed = match self.config() {
            Value::Null => serde_json::from_value(Value::Object(serde_json::Map::new())),
            config => T::deserialize(config),
        };
        parsed.map_err(|e| {
            let message = format!("handler.initialization of `{}`: {e}", self.name());
            StepError::permanent(code::CONFIG_INVALID, message)
        })
    }

    /// The range of a batch worker and what it shares with the others; `None` for other steps.
    pub fn step_inputs(&self) -> Option<BatchWorkerInputs> {
        let parts = self.parts();
        let cursor = parts.cursor.clone()?;
        let batch_metadata = parts.shared.batch.clone().unwrap_or_default();
        Some(BatchWorkerInputs { cursor, batch_metadata, is_no_op: parts.shared.is_no_op })
    }

    /// The batches that a convergence step aggregates.
    pub fn batches(&self) -> &[BatchSummary] {
        &self.parts().shared.batches
    }

    /// Whether the step should stop: its result is no longer wanted.
    pub fn cancelled(&self) -> bool {
        *self.parts().cancelled.borrow()
    }

    /// An error if the step should stop, for loops that want to end with `?`.
    ///
    /// # Errors
    /// A retryable [`code::CANCELLED`] if so.
    pub fn check_cancelled(&self) -> Result<(), StepError> {
        if self.cancelled() {
            return Err(StepError::retryable(code::CANCELLED, "the step was asked to stop"));
        }
        Ok(())
    }

    /// Returns when the step should stop; never, if that does not happen.
    pub async fn cancelled_wait(&self) {
        let mut cancelled = self.parts().cancelled.clone();
        if cancelled.wait_for(|&cancelled| cancelled).await.is_err() {
            // Nobody is left who could ask the step to stop.
            std::future::pending::<()>().await;
        }
    }

    /// Tells people how far the step is. May be dropped on the way.
    pub fn progress(&self, done: u64, total: u64) {
        let progress = Progress { step_id: self.step_id(), attempt: self.attempt(), done, total };
        self.parts().backend.report_progress(progress);
    }

    /// Stores ranges of a batchable step while its handler runs, in order. Returns how many have
    /// been stored so far; the outcome names that number instead of a list
    /// ([`crate::Batchable::batch_appended_success`]).
    ///
    /// # Errors
    /// [`code::ATTEMPT_SUPERSEDED`] if another attempt is current, else the backend's. The attempt
    /// cannot append anything after an error, because a page may or may not have been stored.
    pub async fn append_cursors(&self, page: Vec<CursorConfig>) -> Result<u32, StepError> {
        // Held across the request, since pages must arrive in the order of their numbers.
        let mut appended = self.inner.appended.lock().await;
        let mut rest = page.into_iter();
        loop {
            let cursors: Vec<_> = rest.by_ref().take(CURSORS_PER_PAGE).collect();
            if cursors.is_empty() {
                return Ok(appended.cursors);
            }
            let count = cursors.len() as u32;
            let request = AppendCursors {
                step_id: self.step_id(),
                attempt: self.attempt(),
                page: appended.pages,
                cursors,
            };
            if std::mem::replace(&mut appended.in_doubt, true) {
                let message = "an earlier page of cursors was not confirmed";
                return Err(StepError::retryable(wire_code::HANDLER_ERROR, message));
            }
            if !self.parts().backend.append_cursors(request).await?.current {
                let message = "another attempt of the step is current";
                return Err(StepError::retryable(code::ATTEMPT_SUPERSEDED, message));
            }
            appended.in_doubt = false;
            appended.pages += 1;
            appended.cursors = appended.cursors.saturating_add(count);
        }
    }

    /// The file behind a path of the task context, as [`DataRoots::resolve`] finds it. Reads the
    /// file system: call it where blocking is allowed ([`crate::run_blocking`]).
    ///
    /// # Errors
    /// A permanent one that names the file: outside the data roots, missing or not readable.
    pub fn resolve_path(&self, path: &str) -> Result<PathBuf, StepError> {
        self.parts().files.resolve(path)
    }
}

impl std::fmt::Debug for StepContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepContext")
            .field("task_id", &self.task_id())
            .field("step_id", &self.step_id())
            .field("name", &self.name())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tasker_messages::cursor::create_cursor_configs;

    use super::*;
    use crate::testing::TestContext;

    #[tokio::test]
    async fn cursors_are_appended_in_numbered_pages() {
        let test = TestContext::builder().build_observed();
        let mut configs = create_cursor_configs(2_600, 2_600);
        let rest = configs.split_off(2_500);
        assert_eq!(test.ctx().append_cursors(configs.clone()).await, Ok(2_500));
        assert_eq!(test.ctx().append_cursors(Vec::new()).await, Ok(2_500));
        assert_eq!(test.ctx().append_cursors(rest.clone()).await, Ok(2_600));
        configs.extend(rest);
        assert_eq!((test.appended_cursors(), test.appended_pages()), (configs, 4));
    }

    #[tokio::test]
    async fn nothing_is_appended_after_a_page_in_doubt() {
        let ctx = TestContext::builder().superseded().build();
        for expect in [code::ATTEMPT_SUPERSEDED, wire_code::HANDLER_ERROR] {
            let error = ctx.append_cursors(create_cursor_configs(1, 1)).await.expect_err("refused");
            assert_eq!(error.code(), expect);
        }
    }

    #[test]
    fn a_plan_is_told_apart() {
        assert!(TestContext::builder().plan().build().is_plan());
        assert!(!TestContext::builder().build().is_plan());
    }

    #[tokio::test]
    async fn a_step_is_asked_to_stop() {
        let test = TestContext::builder().build_observed();
        let ctx = test.ctx();
        assert!(ctx.check_cancelled().is_ok());
        let waiting = tokio::spawn(async move { ctx.cancelled_wait().await });
        test.cancel();
        waiting.await.expect("it was told");
        assert_eq!(test.ctx().check_cancelled().expect_err("told").code(), code::CANCELLED);

        let alone = TestContext::builder().build();
        let wait = tokio::time::timeout(Duration::from_millis(10), alone.cancelled_wait());
        assert!(wait.await.is_err(), "nobody asked");
    }

    #[test]
    fn attempts() {
        // (attempt, tries, budget) -> (is_retry, is_last_retry)
        let table = [
            ((1, 0, 3), (false, false)),
            ((1, 0, 1), (false, true)),
            ((2, 0, 3), (true, false)),
            ((2, 1, 3), (true, false)),
            ((3, 2, 3), (true, true)),
            ((9, 2, 3), (true, true)),
        ];
        for ((attempt, tries, most), expect) in table {
            let ctx = TestContext::builder().attempt(attempt, tries).max_attempts(most).build();
            assert_eq!((ctx.is_retry(), ctx.is_last_retry()), expect, "{attempt} {tries} {most}");
            assert_eq!(ctx.fencing_token(), attempt);
        }
    }

    #[test]
    fn input_and_config() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Wanted {
            #[serde(default)]
            size: u32,
        }
        let read = |value: Value| {
            let ctx = TestContext::builder().input(value.clone()).config(value).build();
            (ctx.input::<Wanted>(), ctx.config_as::<Wanted>())
        };
        assert_eq!(read(json!({"size": 3})), (Ok(Wanted { size: 3 }), Ok(Wanted { size: 3 })));
        let (input, config) = read(json!({"size": -3}));
        assert_eq!(input.expect_err("negative").code(), code::VALIDATION_ERROR);
        assert_eq!(config.expect_err("negative").code(), code::CONFIG_INVALID);
        assert_eq!(read(Value::Null).1, Ok(Wanted { size: 0 }));
    }

    #[test]
    fn progress_reaches_the_backend() {
        let test = TestContext::builder().build_observed();
        test.ctx().progress(3, 10);
        let got: Vec<_> = test.progress().iter().map(|p| (p.done, p.total)).collect();
        assert_eq!(got, [(3, 10)]);
    }
}
