use std::path::PathBuf;

use serde_json::Value;
use tasker_messages::{CursorConfig, CursorRange, SplitWishes, code as wire_code, cursor};

use super::{TestBatch, TestContext, TestContextBuilder};
use crate::{RegisteredHandler, StepError, StepHandler};

/// An analyzer, its workers and their aggregator, run one after the other in memory as a cluster
/// would run them in parallel, each once.
pub struct BatchFlow {
    analyzer: Step,
    worker: Step,
    aggregator: Step,
    context: Value,
    config: Value,
    batch_size: Option<u32>,
    max_workers: Option<u32>,
    data_root: PathBuf,
    page_limit: u32,
}

struct Step {
    name: String,
    handler: RegisteredHandler,
}

/// What came out of a [`BatchFlow`].
#[derive(Debug)]
pub struct FlowResult {
    /// What the analyzer returned.
    pub analyzer: Value,
    /// The ranges that it made; none if there are no batches.
    pub ranges: Vec<CursorConfig>,
    /// What each range's worker returned.
    pub workers: Vec<Result<Value, StepError>>,
    /// What the aggregator returned; `None` if every worker failed, so that it did not run.
    pub aggregate: Option<Result<Value, StepError>>,
}

impl BatchFlow {
    /// Three steps with the names that their template gives them.
    pub fn new(
        (analyzer, analyze): (&str, impl StepHandler),
        (worker, work): (&str, impl StepHandler),
        (aggregator, aggregate): (&str, impl StepHandler),
    ) -> Self {
        Self {
            analyzer: Step::new(analyzer, analyze),
            worker: Step::new(worker, work),
            aggregator: Step::new(aggregator, aggregate),
            context: Value::Null,
            config: Value::Null,
            batch_size: None,
            max_workers: None,
            data_root: PathBuf::from("."),
            page_limit: 1_000,
        }
    }

    /// The context of the task.
    #[must_use]
    pub fn context(mut self, context: Value) -> Self {
        self.context = context;
        self
    }

    /// `handler.initialization` of all three steps.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// `batch_size` and `max_workers` of the template's `batch_config`.
    #[must_use]
    pub fn split_wishes(mut self, batch_size: u32, max_workers: u32) -> Self {
        (self.batch_size, self.max_workers) = (Some(batch_size), Some(max_workers));
        self
    }

    /// The directory that relative paths start from and that holds all files that may be read.
    #[must_use]
    pub fn data_root(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_root = dir.into();
        self
    }

    /// How many members a page holds at most.
    #[must_use]
    pub fn page_limit(mut self, members: u32) -> Self {
        self.page_limit = members;
        self
    }

    /// Runs all steps.
    ///
    /// # Errors
    /// That of the analyzer, or one that says what is wrong with its outcome.
    pub async fn run(&self) -> Result<FlowResult, StepError> {
        let wishes = SplitWishes {
            worker_template: self.worker.name.clone(),
            batch_size: self.batch_size,
            max_workers: self.max_workers,
        };
        let observed = self.context_of(&self.analyzer.name).split_wishes(wishes).build_observed();
        let analyzer = self.analyzer.handler.call(observed.ctx()).await?.into_value();
        let outcome = &analyzer["batch_processing_outcome"];
        let mut batch = TestBatch::new(&self.analyzer.name, &self.worker.name);
        let ranges = match outcome["type"].as_str() {
            Some("no_batches") => {
                batch = TestBatch::no_batches(&self.analyzer.name, &self.worker.name);
                let ctx = self.context_of(&member(&self.worker, cursor::NO_OP_BATCH_ID)).no_op();
                self.worker.handler.call(ctx.build()).await?;
                Vec::new()
            }
            Some("create_batches") => self.ranges(outcome, &observed)?,
            _ => return Err(malformed(format!("no known type in {outcome}"))),
        };
        batch = batch.analyzer_result(analyzer.clone());
        let mut workers = Vec::with_capacity(ranges.len());
        for range in &ranges {
            let ctx = self.context_of(&member(&self.worker, &range.batch_id)).cursor(range.clone());
            let ctx = ctx.dependency(&self.analyzer.name, analyzer.clone()).build();
            let result = self.worker.handler.call(ctx).await.map(crate::StepResult::into_value);
            batch = batch.member(result.clone());
            workers.push(result);
        }
        let all_failed = !workers.is_empty() && workers.iter().all(Result::is_err);
        let aggregate = if all_failed { None } else { Some(self.aggregate(batch).await) };
        Ok(FlowResult { analyzer, ranges, workers, aggregate })
    }

    async fn aggregate(&self, batch: TestBatch) -> Result<Value, StepError> {
        let ctx = self.context_of(&self.aggregator.name).page_limit(self.page_limit).batch(batch);
        let result = self.aggregator.handler.call(ctx.build()).await;
        result.map(crate::StepResult::into_value)
    }

    fn context_of(&self, name: &str) -> TestContextBuilder {
        TestContext::builder()
            .name(name)
            .input(self.context.clone())
            .config(self.config.clone())
            .data_root(self.data_root.clone())
    }

    /// Reads the ranges of an outcome in any of its three forms.
    fn ranges(
        &self,
        outcome: &Value,
        observed: &TestContext,
    ) -> Result<Vec<CursorConfig>, StepError> {
        if outcome["worker_template_name"] != self.worker.name.as_str() {
            return Err(malformed(format!("the worker is `{}`: {outcome}", self.worker.name)));
        }
        let appended = observed.appended_cursors();
        let ranges = if let Some(list) = outcome.get("cursor_configs") {
            serde_json::from_value(list.clone())?
        } else if let Some(range) = outcome.get("cursor_range") {
            let range: CursorRange = serde_json::from_value(range.clone())?;
            cursor::Pieces::by_size(range.start, range.end, range.batch_size, u32::MAX).configs()
        } else if outcome["cursors_appended"] == appended.len() {
            appended
        } else {
            let count = appended.len();
            return Err(malformed(format!("{count} ranges were appended, outcome: {outcome}")));
        };
        if outcome["worker_count"] != ranges.len() {
            return Err(malformed(format!("{} ranges, outcome: {outcome}", ranges.len())));
        }
        Ok(ranges)
    }
}

impl Step {
    fn new(name: &str, handler: impl StepHandler) -> Self {
        Self { name: name.to_owned(), handler: RegisteredHandler::new(handler) }
    }
}

fn member(worker: &Step, batch_id: &str) -> String {
    cursor::member_name(&worker.name, batch_id)
}

fn malformed(message: String) -> StepError {
    StepError::permanent(wire_code::BATCH_OUTCOME_INVALID, message)
}
