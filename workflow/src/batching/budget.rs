//! How many members of a batch may fail.

use tasker_messages::{FailureStrategy, StepFailure, code};

use super::ERROR_TYPE;
use crate::template::BatchConfig;

/// How many failed members a batch tolerates, as its template says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerated {
    /// So many.
    Count(u32),
    /// Such a part of the members, 0 to 100; a fraction of a member is not tolerated.
    Percentage(f64),
}

/// How many of `expected` members may fail before the batch is stopped. Without a number in the
/// template: none for `fail_fast`, else all of them.
pub fn failure_budget(config: Option<&BatchConfig>, expected: u32) -> u32 {
    let strategy = config.map_or(FailureStrategy::default(), |config| config.failure_strategy);
    match (config.and_then(|config| config.tolerated), strategy) {
        (Some(Tolerated::Count(count)), _) => count.min(expected),
        (Some(Tolerated::Percentage(part)), _) => {
            // The cast saturates; a part above 100 never gets here.
            ((f64::from(expected) * part / 100.0).floor() as u32).min(expected)
        }
        (None, FailureStrategy::FailFast) => 0,
        (None, FailureStrategy::ContinueOnFailure | FailureStrategy::Isolate) => expected,
    }
}

/// The failure of a batch that was stopped, so that its aggregator does not run.
pub fn stopped(worker_template: &str, failed: u32, budget: u32) -> StepFailure {
    StepFailure {
        code: code::BATCH_STOPPED.to_owned(),
        message: format!(
            "{failed} members of `{worker_template}` failed and {budget} are tolerated, so the batch \
             was stopped"
        ),
        retryable: false,
        error_type: ERROR_TYPE.to_owned(),
        retry_after_ms: None,
        context: serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets() {
        use FailureStrategy::{ContinueOnFailure, FailFast, Isolate};
        use Tolerated::{Count, Percentage};
        // strategy, tolerated, members -> budget
        let table = [
            (ContinueOnFailure, None, 10, 10),
            (Isolate, None, 10, 10),
            (FailFast, None, 10, 0),
            (FailFast, Some(Count(2)), 10, 2),
            (ContinueOnFailure, Some(Count(0)), 10, 0),
            (ContinueOnFailure, Some(Count(99)), 10, 10),
            (ContinueOnFailure, Some(Percentage(0.0)), 10, 0),
            (ContinueOnFailure, Some(Percentage(9.9)), 10, 0),
            (ContinueOnFailure, Some(Percentage(10.0)), 10, 1),
            (Isolate, Some(Percentage(33.4)), 3, 1),
            (Isolate, Some(Percentage(100.0)), u32::MAX, u32::MAX),
        ];
        for (failure_strategy, tolerated, members, expect) in table {
            let config = BatchConfig { failure_strategy, tolerated, ..BatchConfig::default() };
            assert_eq!(failure_budget(Some(&config), members), expect, "{config:?} of {members}");
        }
        assert_eq!(failure_budget(None, 7), 7);
    }
}
