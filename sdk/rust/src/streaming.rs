use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tasker_messages::{MemberResult, code};

use crate::aggregation::count_workers;
use crate::{MemberResultExt, StepContext, StepError, StepResult, checkpoint};

/// An aggregate that is made member by member, so that its size does not depend on theirs.
pub trait StreamingAggregator: Send + Sync {
    /// What is known so far. Starts as its default. A large batch is aggregated with checkpoints, so
    /// that another attempt need not begin at the first member.
    type Acc: Default + Serialize + DeserializeOwned + Send + Sync;

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

/// Members between two checkpoints of an aggregate. One costs about as much as reading a page.
const MEMBERS_PER_CHECKPOINT: u64 = 50_000;

/// Where an aggregate stands.
#[derive(Serialize, Deserialize)]
struct Position {
    /// Which of the context's batches is being read.
    batch: usize,
    /// The first member of it that was not folded.
    ordinal: u32,
    succeeded: u32,
    failed: u32,
}

/// Runs an aggregator over all batches of a convergence step, from the last checkpoint on.
///
/// # Errors
/// Those of the aggregator, of [`crate::MemberStream::next`] and of [`StepContext::checkpoint`]. An
/// accumulator that is too large for a checkpoint is no error: the aggregate is made without.
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
    let mut folded = 0;
    if let Some(stored) = ctx.checkpoint().await? {
        let at: Position = serde_json::from_value(stored.cursor.clone())?;
        (fan_in.succeeded, fan_in.failed) = (at.succeeded, at.failed);
        acc = checkpoint::accumulated(&stored)?;
        folded = stored.items_processed;
        members.skip_to(at.batch, at.ordinal);
    }
    while let Some(member) = members.next().await? {
        aggregator.fold(&mut acc, &member)?;
        folded += 1;
        if member.is_success() {
            fan_in.succeeded += 1;
        } else {
            fan_in.failed += 1;
        }
        if folded % checkpoint_every(ctx) == 0 {
            let position = Position {
                batch: members.of_page(),
                ordinal: member.ordinal.saturating_add(1),
                succeeded: fan_in.succeeded,
                failed: fan_in.failed,
            };
            keep(ctx, &position, folded, &acc).await?;
        }
    }
    aggregator.finish(acc, &fan_in)
}

/// A template may ask for more checkpoints, or fewer.
fn checkpoint_every(ctx: &StepContext) -> u64 {
    let asked = ctx.config().get("checkpoint_interval").and_then(serde_json::Value::as_u64);
    asked.filter(|&members| members > 0).unwrap_or(MEMBERS_PER_CHECKPOINT)
}

async fn keep(
    ctx: &StepContext,
    position: &Position,
    folded: u64,
    acc: &(impl Serialize + Sync),
) -> Result<(), StepError> {
    match ctx.save_checkpoint(position, folded, acc).await {
        Err(error) if error.code() == code::CHECKPOINT_NOT_STORABLE => {
            tracing::debug!(step.id = %ctx.step_id(), %error, "aggregated without a checkpoint");
            Ok(())
        }
        saved => saved,
    }
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
    async fn an_aggregate_goes_on_from_its_checkpoint() {
        let of = |from: u32, upto: u32| {
            (from..upto).fold(TestBatch::new("a", "w"), |batch, n| batch.succeeded(json!(n)))
        };
        let context = || {
            let config = json!({"checkpoint_interval": 3});
            TestContext::builder().page_limit(2).config(config).batch(of(0, 4)).batch(of(4, 9))
        };
        let whole = context().build_observed();
        let expect = run_streaming(&whole.ctx(), &Order).await.expect("in memory").into_value();
        let stored = whole.checkpoints();
        assert_eq!(stored.iter().map(|c| c.items_processed).collect::<Vec<_>>(), [3, 6, 9]);
        for checkpoint in stored {
            let ctx = context().attempt(2, 1).checkpoint(checkpoint.clone()).build();
            let got = run_streaming(&ctx, &Order).await.expect("in memory").into_value();
            assert_eq!(got, expect, "from {checkpoint:?}");
        }
    }

    #[tokio::test]
    async fn nothing_to_fold() {
        let ctx = TestContext::builder().batch(TestBatch::no_batches("a", "w")).build();
        let got = run_streaming(&ctx, &Order).await.expect("in memory").into_value();
        assert_eq!(got, json!({"order": [], "counts": [0, 0, 0], "no_batches": true}));
    }
}
