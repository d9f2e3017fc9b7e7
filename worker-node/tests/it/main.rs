//! A worker against a real nats-server and a fake orchestrator.

#[path = "../../../bus/tests/support/mod.rs"]
mod server;

mod ahead;
mod beats;
mod bundles;
mod delivery;
mod fake;
mod handlers;
mod handover;
mod plans;
mod reports;
mod stop;
