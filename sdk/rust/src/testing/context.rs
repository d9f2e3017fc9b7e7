use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tasker_messages::{
    BatchId, BatchMetadata, Checkpoint, CursorConfig, DependencyResult, Namespace, Queue,
    SharedStep, SplitWishes, StepId, StepKind, TaskId, cursor,
};
use tokio::sync::watch;
use uuid::Uuid;

use super::TestBatch;
use super::backend::{MemoryBackend, Recorded};
use crate::{ContextParts, DataRoots, Progress, StepContext};

/// A UUIDv7 to count up from; tests get the same ids every time.
const FIRST_ID: u128 = 0x0190_0000_0000_7000_8000_0000_0000_0000;

/// A context in memory and what its handler did with it.
pub struct TestContext {
    ctx: StepContext,
    backend: Arc<MemoryBackend>,
    cancel: watch::Sender<bool>,
}

impl TestContext {
    /// Starts a context: attempt 1 of a step `step` with an empty object as input.
    pub fn builder() -> TestContextBuilder {
        TestContextBuilder::default()
    }

    /// What to call the handler with.
    pub fn ctx(&self) -> StepContext {
        self.ctx.clone()
    }

    /// Asks the step to stop.
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
    }

    /// The ranges that were appended so far.
    pub fn appended_cursors(&self) -> Vec<CursorConfig> {
        self.backend.recorded().cursors.clone()
    }

    /// In how many pages they came.
    pub fn appended_pages(&self) -> u32 {
        self.backend.recorded().pages
    }

    /// The checkpoints that were stored, the one that the context began with among them.
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        self.backend.recorded().checkpoints.clone()
    }

    /// The progress that was reported so far.
    pub fn progress(&self) -> Vec<Progress> {
        self.backend.recorded().progress.clone()
    }
}

/// Makes a [`TestContext`].
pub struct TestContextBuilder {
    name: String,
    attempt: u32,
    tries: u32,
    cursor: Option<CursorConfig>,
    shared: SharedStep,
    files: DataRoots,
    batches: Vec<TestBatch>,
    results: BTreeMap<String, Value>,
    page_limit: u32,
    superseded: bool,
    is_plan: bool,
    checkpoint: Option<Checkpoint>,
}

impl Default for TestContextBuilder {
    fn default() -> Self {
        let shared = SharedStep {
            method: SharedStep::DEFAULT_METHOD.to_owned(),
            resolver: None,
            has_schema: false,
            has_events: false,
            kind: StepKind::Standard,
            callable: "test".to_owned(),
            queue: Queue::default(),
            config: Value::Null,
            context: json!({}),
            timeout_ms: None,
            max_attempts: 3,
            dependencies: BTreeMap::new(),
            split: None,
            batch: None,
            is_no_op: false,
            batches: Vec::new(),
        };
        Self {
            name: "step".to_owned(),
            attempt: 1,
            tries: 0,
            cursor: None,
            shared,
            files: DataRoots { base: PathBuf::from("."), roots: Vec::new() },
            batches: Vec::new(),
            results: BTreeMap::new(),
            page_limit: 1_000,
            superseded: false,
            is_plan: false,
            checkpoint: None,
        }
    }
}

impl TestContextBuilder {
    /// The step's name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The attempt and how many before it were charged to the budget.
    #[must_use]
    pub fn attempt(mut self, attempt: u32, tries: u32) -> Self {
        (self.attempt, self.tries) = (attempt, tries);
        self
    }

    /// What an earlier attempt has stored; name an [`Self::attempt`] that is not the first.
    #[must_use]
    pub fn checkpoint(mut self, checkpoint: Checkpoint) -> Self {
        self.checkpoint = Some(checkpoint);
        self
    }

    /// The retry budget.
    #[must_use]
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.shared.max_attempts = max_attempts;
        self
    }

    /// The context of the task.
    #[must_use]
    pub fn input(mut self, context: Value) -> Self {
        self.shared.context = context;
        self
    }

    /// `handler.initialization` of the template.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.shared.config = config;
        self
    }

    /// Makes the step a batchable one whose template wishes it to be split so.
    #[must_use]
    pub fn split_wishes(mut self, wishes: SplitWishes) -> Self {
        self.shared.split = Some(wishes);
        self.shared.kind = StepKind::Batchable;
        self
    }

    /// Makes the step a batch worker with this range.
    #[must_use]
    pub fn cursor(mut self, cursor: CursorConfig) -> Self {
        self.cursor = Some(cursor);
        self.shared.kind = StepKind::BatchWorker;
        self
    }

    /// Makes the step the placeholder of a batch without ranges.
    #[must_use]
    pub fn no_op(mut self) -> Self {
        self.shared.is_no_op = true;
        self.cursor(CursorConfig {
            batch_id: cursor::NO_OP_BATCH_ID.to_owned(),
            start_cursor: Value::Null,
            end_cursor: Value::Null,
            batch_size: 0,
        })
    }

    /// What a batch worker shares with the other members.
    #[must_use]
    pub fn batch_metadata(mut self, metadata: BatchMetadata) -> Self {
        self.shared.batch = Some(metadata);
        self
    }

    /// Makes the step depend on another one that returned this.
    #[must_use]
    pub fn dependency(self, name: &str, result: Value) -> Self {
        self.depends(name, DependencyResult::Result(result))
    }

    /// The same, but the result does not travel along.
    #[must_use]
    pub fn large_dependency(mut self, name: &str, result: Value) -> Self {
        let bytes = result.to_string().len() as u64;
        self.results.insert(name.to_owned(), result);
        self.depends(name, DependencyResult::TooLarge { bytes })
    }

    /// Makes the step depend on another one that ended in error.
    #[must_use]
    pub fn failed_dependency(self, name: &str, message: &str) -> Self {
        self.depends(name, DependencyResult::Failed(message.to_owned()))
    }

    fn depends(mut self, name: &str, result: DependencyResult) -> Self {
        self.shared.dependencies.insert(name.to_owned(), result);
        self
    }

    /// Makes the step the aggregator of a batch, beside other batches that were added before.
    #[must_use]
    pub fn batch(mut self, batch: TestBatch) -> Self {
        self.batches.push(batch);
        self.shared.kind = StepKind::DeferredConvergence;
        self
    }

    /// How many members a page holds at most.
    #[must_use]
    pub fn page_limit(mut self, members: u32) -> Self {
        self.page_limit = members;
        self
    }

    /// Makes the attempt one that is not current any more.
    #[must_use]
    pub fn superseded(mut self) -> Self {
        self.superseded = true;
        self
    }

    /// Makes the run one that only plans a template.
    #[must_use]
    pub fn plan(mut self) -> Self {
        self.is_plan = true;
        self
    }

    /// The directory that relative paths start from and that holds all files that may be read.
    #[must_use]
    pub fn data_root(mut self, dir: impl Into<PathBuf>) -> Self {
        self.files.base = dir.into();
        self.files.roots = vec![self.files.base.clone()];
        self
    }

    /// The context alone.
    pub fn build(self) -> StepContext {
        self.build_observed().ctx
    }

    /// The context with what its handler does to it.
    ///
    /// # Panics
    /// Only if a member's result cannot be written as JSON, which a [`Value`] always can.
    pub fn build_observed(mut self) -> TestContext {
        let mut backend = MemoryBackend {
            batches: BTreeMap::new(),
            results: self.results,
            page_limit: self.page_limit,
            superseded: self.superseded,
            recorded: Mutex::new(Recorded {
                checkpoints: self.checkpoint.into_iter().collect(),
                ..Recorded::default()
            }),
        };
        for (n, batch) in self.batches.iter().enumerate() {
            let batch_id = BatchId::from_uuid(Uuid::from_u128(FIRST_ID + ((n as u128 + 1) << 64)));
            let members = batch.member_results().expect("a JSON value can be written");
            if let Some(result) = &batch.analyzer_result {
                backend.results.insert(batch.batchable_step.clone(), result.clone());
            }
            backend.batches.insert(batch_id, members);
            self.shared.batches.push(batch.summary(batch_id));
        }
        let backend = Arc::new(backend);
        let (cancel, cancelled) = watch::channel(false);
        let ctx = StepContext::new(ContextParts {
            namespace: Namespace::new("test").expect("a valid name"),
            task_id: TaskId::from_uuid(Uuid::from_u128(FIRST_ID)),
            step_id: StepId::from_uuid(Uuid::from_u128(FIRST_ID + 1)),
            name: self.name.into(),
            attempt: self.attempt,
            tries: self.tries,
            shared: Arc::new(self.shared),
            cursor: self.cursor,
            cancelled,
            backend: Arc::clone(&backend) as _,
            files: Arc::new(self.files),
            is_plan: self.is_plan,
        });
        TestContext { ctx, backend, cancel }
    }
}
