use serde_json::{Map, Value, json};
use tasker_messages::code as wire_code;

use crate::{StepError, StepResult};

/// The key of a decision's result under which its outcome stands.
const OUTCOME_KEY: &str = "decision_point_outcome";

/// What handlers of decision steps have in common: `impl Decision for MyHandler {}` is enough.
///
/// A decision names those of the steps that depend on it which are to exist; the others, and what is
/// behind them, never do. Results are `{"decision_point_outcome": …}` with the keys of `data`, an
/// object or null, beside it.
pub trait Decision {
    /// These steps are to exist. What is behind them comes along; convergences come by themselves.
    ///
    /// # Errors
    /// A permanent one if no step is named, or the data are not an object or take the outcome's key.
    fn decision_success<S: Into<String>>(
        &self,
        steps: impl IntoIterator<Item = S>,
        data: Value,
    ) -> Result<StepResult, StepError>
    where
        Self: Sized,
    {
        let steps: Vec<String> = steps.into_iter().map(Into::into).collect();
        if steps.is_empty() {
            return Err(StepError::permanent(
                wire_code::DECISION_OUTCOME_INVALID,
                "no step is named: return `decision_no_branches` when none is to exist",
            ));
        }
        outcome(json!({"type": "create_steps", "step_names": steps}), data)
    }

    /// No branch is to exist.
    ///
    /// # Errors
    /// A permanent one if the data are not an object or take the outcome's key.
    fn decision_no_branches(&self, data: Value) -> Result<StepResult, StepError> {
        outcome(json!({"type": "no_branches"}), data)
    }

    /// No branch is to exist, and why.
    ///
    /// # Errors
    /// None that a caller could cause.
    fn skip_branches(&self, reason: impl Into<String>) -> Result<StepResult, StepError>
    where
        Self: Sized,
    {
        outcome(json!({"type": "no_branches", "reason": reason.into()}), Value::Null)
    }
}

fn outcome(outcome: Value, data: Value) -> Result<StepResult, StepError> {
    let invalid =
        |message: String| StepError::permanent(wire_code::DECISION_OUTCOME_INVALID, message);
    let mut keys = match data {
        Value::Null => Map::new(),
        Value::Object(keys) => keys,
        other => {
            return Err(invalid(format!("the data of a decision must be an object, not {other}")));
        }
    };
    if keys.insert(OUTCOME_KEY.to_owned(), outcome).is_some() {
        return Err(invalid(format!("the key `{OUTCOME_KEY}` is the outcome's own")));
    }
    Ok(Value::Object(keys).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Router;
    impl Decision for Router {}

    #[test]
    fn outcomes() {
        let got = Router.decision_success(["a", "b"], json!({"why": 1})).expect("valid");
        let outcome = json!({"type": "create_steps", "step_names": ["a", "b"]});
        assert_eq!(got.value(), &json!({"decision_point_outcome": outcome, "why": 1}));
        let got = Router.decision_no_branches(Value::Null).expect("valid");
        assert_eq!(got.value(), &json!({"decision_point_outcome": {"type": "no_branches"}}));
        let got = Router.skip_branches("closed").expect("valid");
        let outcome = json!({"type": "no_branches", "reason": "closed"});
        assert_eq!(got.value(), &json!({"decision_point_outcome": outcome}));
    }

    #[test]
    fn what_makes_no_sense() {
        let none: [&str; 0] = [];
        let code = |result: Result<StepResult, StepError>| {
            result.map_err(|error| (error.code().to_owned(), error.is_retryable())).expect_err("no")
        };
        let invalid = (wire_code::DECISION_OUTCOME_INVALID.to_owned(), false);
        assert_eq!(code(Router.decision_success(none, Value::Null)), invalid);
        assert_eq!(code(Router.decision_success(["a"], json!([1]))), invalid);
        let taken = json!({"decision_point_outcome": 1});
        assert_eq!(code(Router.decision_no_branches(taken)), invalid);
    }
}
