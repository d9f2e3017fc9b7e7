//! An orchestrator process: the actor tree and the HTTP API.

mod http;
mod run;

pub use http::{RouteView, routes};
pub use run::{Options, RunError, run};
