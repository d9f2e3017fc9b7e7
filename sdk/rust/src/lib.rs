//! What an author of Tasker step handlers sees.
//!
//! A handler is a small object with `call`. It is registered under the name that templates use as
//! `handler.callable`:
//!
//! ```
//! use tasker_sdk::{HandlerRegistry, StepContext, StepError, StepHandler, StepResult};
//!
//! struct Greet;
//!
//! impl StepHandler for Greet {
//!     async fn call(&self, ctx: StepContext) -> Result<StepResult, StepError> {
//!         let who = ctx.input_json()["who"].as_str().unwrap_or("world");
//!         Ok(serde_json::json!({"greeting": format!("hello {who}")}).into())
//!     }
//! }
//!
//! let registry = HandlerRegistry::new().register("greet", Greet);
//! assert!(registry.get("greet").is_some());
//! ```
//!
//! Handlers run at least once: [`StepContext::idempotency_key`] is the same for every attempt of a
//! step, [`StepContext::fencing_token`] rises with each. Handlers of batches compose
//! [`Batchable`], [`BatchWorkerContext`] and [`StreamingAggregator`]; [`testing`] runs all of them
//! in memory. With the feature `api`, handlers that call HTTP services compose `Api`.

mod aggregation;
#[cfg(feature = "api")]
mod api;
mod backend;
mod batch_worker;
mod batchable;
mod blocking;
mod checkpoint;
pub mod code;
mod context;
mod data_roots;
mod decision;
mod dependencies;
mod error;
mod handler;
mod member_stream;
mod registry;
mod result;
mod streaming;
pub mod testing;

pub use aggregation::{AggregateFn, BatchAggregationScenario, aggregate_worker_results};
#[cfg(feature = "api")]
pub use api::{
    Api, ApiClient, ApiClientBuilder, ApiPage, ApiPages, ApiRequest, ApiResponse,
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_MAX_BODY_BYTES, DEFAULT_MAX_PAGES, DEFAULT_MAX_REDIRECTS,
    DEFAULT_TIMEOUT, MAX_RETRY_AFTER, Pagination, Secret,
};
pub use backend::{Progress, StepBackend};
pub use batch_worker::{BatchWorkerContext, BatchWorkerOutcome};
pub use batchable::Batchable;
pub use blocking::run_blocking;
pub use checkpoint::MAX_CHECKPOINT_BYTES;
pub use context::{ContextParts, StepContext};
pub use data_roots::DataRoots;
pub use decision::Decision;
pub use error::StepError;
pub use futures::future::BoxFuture;
pub use handler::{RegisteredHandler, StepHandler};
pub use member_stream::{MemberResultExt, MemberStream};
pub use registry::HandlerRegistry;
pub use result::StepResult;
pub use streaming::{FanIn, StreamingAggregator, run_streaming};
pub use tasker_messages::{
    BatchMetadata, BatchSummary, BatchWorkerInputs, CursorConfig, CursorRange, DependencyResult,
    FailureStrategy, MemberResult, SplitWishes, StepFailure, StepState,
};
