use serde::Serialize;
use serde_json::Value;
use tasker_messages::{Checkpoint, code};

use crate::StepError;

/// What a handler returns: any JSON value, or how far it has come and that it wants to go on later.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    value: Value,
    yielded: Option<Checkpoint>,
}

impl StepResult {
    /// A result from JSON.
    pub const fn new(value: Value) -> Self {
        Self { value, yielded: None }
    }

    /// No result yet: the step runs again from this checkpoint, as another attempt that costs
    /// nothing of its retry budget, after whatever else waits in its queue.
    pub const fn yielded(checkpoint: Checkpoint) -> Self {
        Self { value: Value::Null, yielded: Some(checkpoint) }
    }

    /// The checkpoint of a step that is to go on later; `None` of one that has ended.
    pub const fn checkpoint(&self) -> Option<&Checkpoint> {
        self.yielded.as_ref()
    }

    /// A result from anything that serialises to JSON.
    ///
    /// # Errors
    /// A permanent error if it does not, e.g. a map whose keys are not texts.
    pub fn of(result: &impl Serialize) -> Result<Self, StepError> {
        serde_json::to_value(result).map(Self::new).map_err(|e| {
            StepError::permanent(code::RESULT_NOT_STORABLE, format!("the result is not JSON: {e}"))
        })
    }

    /// The JSON.
    pub const fn value(&self) -> &Value {
        &self.value
    }

    /// The JSON.
    pub fn into_value(self) -> Value {
        self.value
    }
}

impl From<Value> for StepResult {
    fn from(value: Value) -> Self {
        Self::new(value)
    }
}
