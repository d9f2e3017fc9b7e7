//! A worker that any program can embed: it has no runtime of its own, never ends the process, and
//! leaves logging and the export of metrics to its host.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use tasker_sdk::{HandlerRegistry, StepContext, StepError, StepResult};
//! use tasker_worker_node::WorkerNode;
//!
//! async fn greet(ctx: StepContext) -> Result<StepResult, StepError> {
//!     Ok(serde_json::json!({"greeting": "hello", "step": ctx.name()}).into())
//! }
//!
//! let settings = tasker_config::Loader::new()?.environment(tasker_config::process_environment())?.load()?.settings;
//! let registry = HandlerRegistry::new().register("greet", greet);
//! let worker = WorkerNode::start(settings, registry, "my-worker").await?;
//! // … until the host is asked to stop:
//! worker.stop().await;
//! # Ok(())
//! # }
//! ```

mod node;

pub use node::{WorkerNode, WorkerNodeError};
