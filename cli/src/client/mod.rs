//! The HTTP API as commands use it. Every request is safe to repeat, so a connection that fails is
//! tried again: orchestrators are replaced while clients are at work.

mod api;
mod error;
mod http;
mod patience;

pub(crate) use api::{Client, DeadLetterQuery, Document, StepQuery, TaskQuery};
pub(crate) use error::ClientError;
