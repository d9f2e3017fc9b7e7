//! The actors of an orchestrator process.
//!
//! Requests come in through the gateway; every actor below works on sets, outside of its mailbox,
//! and casts what follows down the pipeline: intake and outcomes -> batch processing and
//! convergence -> dispatch -> finalizer. Whatever a cast would have said is also found by a sweep.

mod batch_processing;
mod calm;
mod checkpoints;
mod convergence;
mod dispatch;
mod events;
mod finalizer;
mod gateway;
mod gather;
mod handover;
mod heartbeats;
mod intake;
mod judge;
mod lifecycle;
mod limits;
mod links;
mod new_task;
mod node;
mod offers;
mod outcomes;
mod plan;
mod plan_request;
mod quota;
mod reads;
mod reconciler;
mod report_queue;
mod retention;
mod shares;
mod system;
mod timers;

pub use limits::Limits;
pub use links::Links;
pub use node::Node;
pub use offers::Offers;
pub use plan::plan_template;
pub use reads::ReadError;
pub use system::{Orchestrator, StartError};
