use serde::Serialize;
use serde_json::Value;
use tasker_messages::code;

use crate::StepError;

/// What a handler returns: any JSON value.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult(Value);

impl StepResult {
    /// A result from JSON.
    pub const fn new(value: Value) -> Self {
        Self(value)
    }

    /// A result from anything that serialises to JSON.
    ///
    /// # Errors
    /// A permanent error if it does not, e.g. a map whose keys are not texts.
    pub fn of(result: &impl Serialize) -> Result<Self, StepError> {
        serde_json::to_value(result).map(Self).map_err(|e| {
            StepError::permanent(code::RESULT_NOT_STORABLE, format!("the result is not JSON: {e}"))
        })
    }

    /// The JSON.
    pub const fn value(&self) -> &Value {
        &self.0
    }

    /// The JSON.
    pub fn into_value(self) -> Value {
        self.0
    }
}

impl From<Value> for StepResult {
    fn from(value: Value) -> Self {
        Self(value)
    }
}
