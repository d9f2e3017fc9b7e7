//! The bus: everything that Tasker does with NATS, and the only crate that knows NATS.
//!
//! Core requests and droppable messages, the JetStream streams and durables, pipelined publishes
//! that are all acknowledged, and a pull loop with exact credit ([`Puller`]).

mod address;
mod batch;
mod bus;
mod clock;
mod confirmed;
mod connection;
mod credentials;
mod delivery;
mod error;
mod incoming;
mod loads;
mod permissions;
mod publish;
mod pull;
mod request;
mod servers;
mod streams;

pub use bus::Bus;
pub use connection::Connection;
pub use delivery::{AckHandle, Delivery};
pub use error::{BusError, PublishError, RequestError};
pub use incoming::{Incoming, Subscription};
pub use loads::{ConsumerLoad, StreamLoad};
pub use permissions::{BusUser, server_users, users};
pub use publish::{Outgoing, Published};
pub use pull::{PullEvent, PullOptions, Puller, ResetReason};
pub use streams::StreamEpoch;
