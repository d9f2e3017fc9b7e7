//! Tests of whole clusters: real processes, a real Postgres and nats-server, over HTTP and NATS.

mod bus;
mod cancel;
mod checkpoints;
mod cli;
mod crash;
mod csv_profile;
mod dead_letters;
mod decisions;
mod environments;
mod failures;
mod fan_out;
mod faulty;
mod fleet;
mod handlers;
mod idempotency;
mod outcomes;
mod parallelism;
mod products;
mod repair;
mod requests;
mod schemas;
mod submissions;
mod support;
mod synthetic;
mod templates;
mod why;
