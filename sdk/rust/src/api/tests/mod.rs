//! The client against real servers on loopback.

mod answers;
mod certificates;
mod guarded;
mod idempotency;
mod limits;
mod paging;
mod redirections;
mod secrets;
mod server;
mod urls;
