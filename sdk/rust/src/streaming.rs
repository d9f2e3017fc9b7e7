use tasker_messages::MemberResult;

use crate::aggregation::count_workers;
use crate::{MemberResultExt, StepContext, StepError, StepResult};

/// An aggregate that is made member by member, so that its size does not depend on theirs.
pub trait StreamingAggregator: Send + Sync {
    /// What is known so far. Starts as its default.
    type Acc: Default + Send;

    /// Takes in one member; members come batch by batch in ordinal order, failed ones included.
    ///
    /// # Errors
    /// Any error ends the step.
    fn fold(&self, acc: &mut Self::Acc, member: &MemberResult) -> Result<(), StepError>;

    /// Makes the result.
    ///
    /// # Errors
    /// Any error ends the step.
    fn finish(&self, acc: Self::Acc, fan_in: &FanIn) -> Result<StepResult, StepError>;
}

/// What came together in an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FanIn {
    /// How many members there were. Placeholders do not count.
    pub worker_count: u32,
    /// How many of them succeeded.
    pub succeeded: u32,
    /// How many of them did not.
    pub failed: u32,
    /// Whether no analyzer found anything to do, so that no member was folded.
    pub no_batches: bool,
}

/// Runs an aggregator over all batches of a convergence step.
///
/// # Errors
/// Those of the aggregator and of [`crate::MemberStream::next`].
pub async fn run_streaming<A: StreamingAggregator>(
    ctx: &StepContext,
    aggregator: &A,
) -> Result<StepResult, StepError> {
    let mut fan_in = FanIn {
        worker_count: count_workers(ctx.batches()),
        succeeded: 0,
        failed: 0,
        no_batches: ctx.batches().iter().all(|batch| batch.is_no_op),
    };
    let mut acc = A::Acc::default();
    let mut members = ctx.stream_dependency_results();
    while let Some(member) = members.next().await? {
        aggregator.fold(&mut acc, &member)?;
        if member.is_success() {
            fan_in.succeeded += 1;
        } else {
            fan_in.failed += 1;
        }
    }
    aggregator.finish(acc, &fan_in)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{TestBatch, TestContext};

    struct Order;

    impl StreamingAggregator for Order {
        type Acc = Vec<u64>;

        fn fold(&self, acc: &mut Vec<u64>, member: &MemberResult) -> Result<(), StepError> {
            acc.extend(member.result_as::<u64>()?);
            Ok(())
        }

        fn finish(&self, acc: Vec<u64>, fan_in: &FanIn) -> Result<StepResult, StepError> {
            let counts = [fan_in.worker_count, fan_in.succeeded, fan_in.failed];
            Ok(json!({"order": acc, "counts": counts, "no_batches": fan_in.no_batches}).into())
        }
    }

    #[tokio::test]
    async fn members_are_folded_in_order() {
        let batch = TestBatch::new("a", "w")
            .succeeded(json!(5))
            .failed(StepError::permanent("BAD", "no luck"))
            .succeeded(json!(3))
            .succeeded(json!(4));
        let ctx = TestContext::builder().page_limit(2).batch(batch).build();
        let got = run_streaming(&ctx, &Order).await.expect("in memory").into_value();
        assert_eq!(got, json!({"order": [5, 3, 4], "counts": [4, 3, 1], "no_batches": false}));
    }

    #[tokio::test]
    async fn nothing_to_fold() {
        let ctx = TestContext::builder().batch(TestBatch::no_batches("a", "w")).build();
        let got = run_streaming(&ctx, &Order).await.expect("in memory").into_value();
        assert_eq!(got, json!({"order": [], "counts": [0, 0, 0], "no_batches": true}));
    }
}
