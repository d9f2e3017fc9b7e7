use serde_json::Value;
use serde_json::value::to_raw_value;
use tasker_messages::{BatchId, BatchState, BatchSummary, MemberResult, StepState, cursor};

use crate::StepError;

/// A finished batch that an aggregator under test finds.
#[derive(Debug, Clone)]
pub struct TestBatch {
    pub(super) batchable_step: String,
    pub(super) analyzer_result: Option<Value>,
    worker_template: String,
    members: Vec<Result<Value, StepError>>,
    is_no_op: bool,
    claimed: Option<u32>,
}

impl TestBatch {
    /// A batch without members so far.
    pub fn new(batchable_step: &str, worker_template: &str) -> Self {
        Self {
            batchable_step: batchable_step.to_owned(),
            analyzer_result: None,
            worker_template: worker_template.to_owned(),
            members: Vec::new(),
            is_no_op: false,
            claimed: None,
        }
    }

    /// What is left when the analyzer found nothing to do: a placeholder that has run.
    pub fn no_batches(batchable_step: &str, worker_template: &str) -> Self {
        Self { is_no_op: true, ..Self::new(batchable_step, worker_template) }
            .analyzer_result(Value::Object(serde_json::Map::new()))
    }

    /// What the analyzer returned.
    #[must_use]
    pub fn analyzer_result(mut self, result: Value) -> Self {
        self.analyzer_result = Some(result);
        self
    }

    /// Adds a member that returned this.
    #[must_use]
    pub fn succeeded(self, result: Value) -> Self {
        self.member(Ok(result))
    }

    /// Adds a member that failed.
    #[must_use]
    pub fn failed(self, error: StepError) -> Self {
        self.member(Err(error))
    }

    /// Adds a member.
    #[must_use]
    pub fn member(mut self, outcome: Result<Value, StepError>) -> Self {
        self.members.push(outcome);
        self
    }

    /// Makes the batch's summary claim another number of members than its pages hold.
    #[must_use]
    pub fn claiming(mut self, worker_count: u32) -> Self {
        self.claimed = Some(worker_count);
        self
    }

    pub(super) fn summary(&self, batch_id: BatchId) -> BatchSummary {
        let failed = self.members.iter().filter(|member| member.is_err()).count() as u32;
        let count = self.members.len() as u32;
        BatchSummary {
            batch_id,
            batchable_step: self.batchable_step.clone(),
            worker_template: self.worker_template.clone(),
            is_no_op: self.is_no_op,
            worker_count: self.claimed.unwrap_or(if self.is_no_op { 1 } else { count }),
            succeeded: count - failed,
            failed,
            state: BatchState::Converged,
        }
    }

    pub(super) fn member_results(&self) -> Result<Vec<MemberResult>, serde_json::Error> {
        let member = |(ordinal, outcome): (usize, &Result<Value, StepError>)| {
            let ordinal = ordinal as u32;
            let batch_id = cursor::batch_id(ordinal);
            let (state, result, error) = match outcome {
                Ok(value) => (StepState::Complete, Some(to_raw_value(value)?), None),
                Err(error) => (StepState::Error, None, Some(error.clone().into_failure())),
            };
            let name = cursor::member_name(&self.worker_template, &batch_id);
            Ok(MemberResult { ordinal, name, state, result, error })
        };
        self.members.iter().enumerate().map(member).collect()
    }
}
