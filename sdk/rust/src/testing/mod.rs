//! Handlers without a cluster: contexts and whole batches in memory.
//!
//! ```
//! use serde_json::json;
//! use tasker_sdk::testing::TestContext;
//! use tasker_sdk::{StepContext, StepError, StepHandler, StepResult};
//!
//! async fn double(ctx: StepContext) -> Result<StepResult, StepError> {
//!     Ok(json!(ctx.input::<u64>()? * 2).into())
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let ctx = TestContext::builder().input(json!(21)).build();
//! assert_eq!(double.call(ctx).await.expect("a number").value(), &json!(42));
//! # });
//! # Ok::<(), std::io::Error>(())
//! ```

mod backend;
mod batch;
mod context;
mod flow;

pub use batch::TestBatch;
pub use context::{TestContext, TestContextBuilder};
pub use flow::{BatchFlow, FlowResult};
