//! Settings of Tasker, typed, with the source of every value; and the set-up of telemetry.
//!
//! Later sources win: built-in defaults, a file, the environment, flags.

mod error;
mod secret;
mod settings;
mod source;
mod telemetry;

pub use error::ConfigError;
pub use secret::Secret;
pub use settings::{
    Api, Auth, Batches, Database, Dispatch, Http, Nats, Outcomes, Reconciler, Retention, Settings,
    Streams, Submit, Supervision, Telemetry, WorkerSettings,
};
pub use source::{Loaded, Loader, Origin, process_environment};
pub use telemetry::init_telemetry;
