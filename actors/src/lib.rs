//! The actors of Tasker: the orchestrator half and the worker half.
//!
//! An actor is a thin shell: it loads, calls a rule of `tasker_workflow`, applies, acknowledges and
//! tells the next. Between processes there is only NATS.

mod link;
mod loops;
#[cfg(feature = "orchestrator")]
pub mod orchestrator;
mod supervisor;
#[cfg(feature = "worker")]
pub mod worker;
