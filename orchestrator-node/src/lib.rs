//! An orchestrator process: the actor tree and the HTTP API.

mod http;
mod run;

pub use run::{Options, RunError, run};
