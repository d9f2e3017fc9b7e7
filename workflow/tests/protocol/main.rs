//! The protocol as a model: every order in which rows, messages, orchestrators and workers can meet,
//! with faults, in small scenarios. What is decided is decided by the crate; what is SQL in the product
//! is a transaction on the model's rows. `docs/model.md` says what is modelled and what was found.

#![allow(clippy::print_stdout, reason = "figures and traces are for whoever runs this by hand")]

mod action;
mod ample;
mod bus;
mod checks;
mod effects;
mod fingerprint;
mod mended;
mod mutant;
mod publishing;
mod requests;
mod rows;
mod scenario;
mod scenarios;
mod search;
mod tests;
mod walk;
mod watch;
mod workers;
mod world;
