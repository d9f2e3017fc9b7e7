//! The settings, section by section. `default.toml` holds every default; there is none in code.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::Secret;

/// All settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// An orchestrator process.
    pub node: Node,
    /// Postgres.
    pub database: Database,
    /// The bus.
    pub nats: Nats,
    /// The HTTP API.
    pub http: Http,
    /// Who may use the HTTP API, and how much.
    pub api: Api,
    /// JetStream streams and consumers.
    pub streams: Streams,
    /// Publishing of ready steps.
    pub dispatch: Dispatch,
    /// Storing of finished attempts.
    pub outcomes: Outcomes,
    /// Expansion and reading of batches.
    pub batches: Batches,
    /// Acceptance of tasks.
    pub submit: Submit,
    /// Comparison of rows with the bus.
    pub reconciler: Reconciler,
    /// Removal of finished tasks.
    pub retention: Retention,
    /// Restarts of actors.
    pub supervision: Supervision,
    /// A worker process.
    pub worker: WorkerSettings,
    /// Logs.
    pub telemetry: Telemetry,
}

/// An orchestrator process.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Which of the `environments` of templates counts; empty is none of them.
    pub environment: String,
}

/// Postgres.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Postgres; also DATABASE_URL. Workers do not have it.
    pub url: String,
    /// Connections of the transactions that carry steps.
    pub hot_connections: u32,
    /// Connections of outcomes and submissions that are single statements.
    pub quick_connections: u32,
    /// Connections of the API and of reads.
    pub api_connections: u32,
    /// Longest statement and longest wait for a lock, kept by the server. In milliseconds.
    pub statement_timeout_ms: u64,
    /// Longest statement and longest wait for a lock, kept by the server. In milliseconds.
    pub lock_timeout_ms: u64,
    /// A frozen orchestrator holds its locks no longer than this. In milliseconds.
    pub idle_in_transaction_timeout_ms: u64,
    /// Whether a server elsewhere may be spoken to without TLS.
    pub dangerously_allow_plaintext: bool,
}

impl Database {
    /// [`Self::statement_timeout_ms`] as a duration.
    pub fn statement_timeout(&self) -> Duration {
        Duration::from_millis(self.statement_timeout_ms)
    }

    /// [`Self::lock_timeout_ms`] as a duration.
    pub fn lock_timeout(&self) -> Duration {
        Duration::from_millis(self.lock_timeout_ms)
    }

    /// [`Self::idle_in_transaction_timeout_ms`] as a duration.
    pub fn idle_in_transaction_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_in_transaction_timeout_ms)
    }
}

/// The bus.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// nats-server; also NATS_URL.
    pub url: String,
    /// The user of the server's configuration; empty is none, or who the URL names.
    pub user: String,
    /// The user's password.
    pub password: Secret,
    /// A file that holds the password instead; empty is none.
    pub password_file: PathBuf,
    /// Certificates (PEM) to trust instead of the machine's; empty is the machine's.
    pub ca_file: PathBuf,
    /// Speak TLS or not at all.
    pub require_tls: bool,
    /// Whether a server elsewhere may be spoken to without TLS.
    pub dangerously_allow_plaintext: bool,
    /// nats-server; also NATS_URL. In milliseconds.
    pub connect_timeout_ms: u64,
    /// nats-server; also NATS_URL. In milliseconds.
    pub ping_interval_ms: u64,
    /// nats-server; also NATS_URL. In milliseconds.
    pub request_timeout_ms: u64,
    /// Commands that wait for the connection; beyond that a sender waits.
    pub command_capacity: usize,
    /// Messages that wait for one subscriber; beyond that they are dropped and counted.
    pub subscription_capacity: usize,
    /// JetStream publishes of one process that wait for their acknowledgement.
    pub max_unacked_publishes: u32,
}

impl Nats {
    /// [`Self::connect_timeout_ms`] as a duration.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// [`Self::ping_interval_ms`] as a duration.
    pub fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    /// [`Self::request_timeout_ms`] as a duration.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}

/// The HTTP API.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address and port; beyond loopback only with [`Auth::Tokens`].
    pub listen: String,
    /// Largest body of a request.
    pub max_body_bytes: usize,
    /// Longest long poll. In seconds.
    pub max_wait_seconds: u64,
}

/// Who may use the HTTP API, and how much.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Who is answered.
    pub auth: Auth,
    /// How old what an orchestrator knows about tokens may be. In milliseconds.
    pub token_refresh_ms: u64,
    /// Requests a second of one token, or of one address without one; 0 is no limit.
    pub requests_per_second: u32,
    /// Requests that may come at once.
    pub request_burst: u32,
}

impl Api {
    /// [`Self::token_refresh_ms`] as a duration.
    pub fn token_refresh(&self) -> Duration {
        Duration::from_millis(self.token_refresh_ms)
    }
}

/// Who is answered by the HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Who has a token.
    Tokens,
    /// Everybody on this machine.
    None,
}

/// JetStream streams and consumers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streams {
    /// A delivery that is neither finished nor extended within this comes back. In milliseconds.
    pub ack_wait_ms: u64,
    /// Deliveries of one queue that may be unacknowledged.
    pub max_ack_pending: u32,
    /// Pull requests that may wait at one consumer, of all processes together.
    pub max_waiting_pulls: u32,
    /// How long the server remembers message ids. In milliseconds.
    pub duplicate_window_ms: u64,
    /// Size limit of the stream of work items; the window keeps far below it.
    pub max_bytes: usize,
}

impl Streams {
    /// [`Self::ack_wait_ms`] as a duration.
    pub fn ack_wait(&self) -> Duration {
        Duration::from_millis(self.ack_wait_ms)
    }

    /// [`Self::duplicate_window_ms`] as a duration.
    pub fn duplicate_window(&self) -> Duration {
        Duration::from_millis(self.duplicate_window_ms)
    }
}

/// Publishing of ready steps.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    /// Steps of one namespace and queue that may be on the bus.
    pub window_min: u32,
    /// Steps of one namespace and queue that may be on the bus.
    pub window_max: u32,
    /// Members of one batch that are published in a row before the next batch has its turn, at least, or
    /// all of it that wait.
    pub quantum: u32,
    /// Most members of a batch that one message brings while members of the queue are quick; 1 is none but
    /// its own.
    pub bundle_max: u32,
    /// Shared parts up to this size travel with a step that is not a member / that is one.
    pub inline_shared_bytes: usize,
    /// Shared parts up to this size travel with a step that is not a member / that is one.
    pub inline_member_shared_bytes: usize,
    /// How often ready steps that were not published are looked for. In milliseconds.
    pub sweep_interval_ms: u64,
}

impl Dispatch {
    /// [`Self::sweep_interval_ms`] as a duration.
    pub fn sweep_interval(&self) -> Duration {
        Duration::from_millis(self.sweep_interval_ms)
    }
}

/// Storing of finished attempts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcomes {
    /// Most outcomes of one transaction, and transactions at a time.
    pub max_per_transaction: u32,
    /// Most outcomes of one transaction, and transactions at a time.
    pub transactions: u32,
    /// Outcomes that may wait in memory; beyond that reports are refused for the moment.
    pub max_waiting: u32,
    /// Largest result or error.
    pub max_result_bytes: usize,
}

/// Expansion and reading of batches.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batches {
    /// Members inserted by one transaction of an expansion.
    pub expand_chunk: u32,
    /// Most members of one batch.
    pub max_members: u32,
    /// Largest page of members' results.
    pub page_members: u32,
    /// Largest page of members' results.
    pub page_bytes: usize,
}

/// Acceptance of tasks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// Most submissions of one transaction.
    pub max_per_transaction: u32,
    /// Submissions that may wait in memory; beyond that they are refused for the moment.
    pub max_waiting: u32,
    /// Most steps of a template that exist at submit.
    pub max_static_steps: u32,
}

/// Comparison of rows with the bus.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconciler {
    /// How often rows are compared with the bus. In milliseconds.
    pub interval_ms: u64,
    /// A step is lost if two checks at least this far apart say so. In milliseconds.
    pub confirm_ms: u64,
    /// Most steps that are dispatched again at a time.
    pub max_redispatch: u32,
    /// An expansion that has not moved for this long is continued by any node. In milliseconds.
    pub stalled_expansion_ms: u64,
    /// A consumer that does not deliver what waits for so long, though workers have room, is made anew. In
    /// milliseconds.
    pub stalled_consumer_ms: u64,
}

impl Reconciler {
    /// [`Self::interval_ms`] as a duration.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }

    /// [`Self::confirm_ms`] as a duration.
    pub fn confirm(&self) -> Duration {
        Duration::from_millis(self.confirm_ms)
    }

    /// [`Self::stalled_consumer_ms`] as a duration.
    pub fn stalled_consumer(&self) -> Duration {
        Duration::from_millis(self.stalled_consumer_ms)
    }

    /// [`Self::stalled_expansion_ms`] as a duration.
    pub fn stalled_expansion(&self) -> Duration {
        Duration::from_millis(self.stalled_expansion_ms)
    }
}

/// Removal of finished tasks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Tasks that finished longer ago are removed; 0 keeps them.
    pub finished_hours: u32,
    /// Of finished tasks only the newest so many are kept; 0 keeps all.
    pub finished_tasks: u32,
    /// Most rows of steps that one transaction deletes.
    pub chunk_rows: u32,
    /// How often it is looked for what is to be removed. In milliseconds.
    pub interval_ms: u64,
}

impl Retention {
    /// [`Self::interval_ms`] as a duration.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }
}

/// Restarts of actors.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supervision {
    /// Restarts of one actor within the window before the process gives up.
    pub max_restarts: u32,
    /// Restarts of one actor within the window before the process gives up. In milliseconds.
    pub window_ms: u64,
    /// Restarts of one actor within the window before the process gives up. In milliseconds.
    pub backoff_ms: u64,
}

impl Supervision {
    /// [`Self::window_ms`] as a duration.
    pub fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms)
    }

    /// [`Self::backoff_ms`] as a duration.
    pub fn backoff(&self) -> Duration {
        Duration::from_millis(self.backoff_ms)
    }
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSettings {
    /// Namespaces to serve; "*" is all that have queues.
    pub namespaces: Vec<String>,
    /// Queues (handler groups) to pull in each namespace.
    pub queues: Vec<String>,
    /// Steps that run at a time.
    pub slots: u32,
    /// Heartbeats, and how long a lease lasts without one. In milliseconds.
    pub heartbeat_ms: u64,
    /// Heartbeats, and how long a lease lasts without one. In milliseconds.
    pub lease_ms: u64,
    /// In-progress acknowledgements of long steps; a third of ack_wait. In milliseconds.
    pub progress_ms: u64,
    /// Finished outcomes are gathered under load up to this time, number and size. In milliseconds.
    pub gather_ms: u64,
    /// Finished outcomes are gathered under load up to this time, number and size.
    pub gather_max: u32,
    /// Finished outcomes are gathered under load up to this time, number and size.
    pub gather_bytes: usize,
    /// Reports without an answer; beyond that nothing is pulled.
    pub max_unanswered: u32,
    /// How long an answer to a report may take before it is sent again. In milliseconds.
    pub report_timeout_ms: u64,
    /// Shared parts of steps kept in memory.
    pub shared_cache_bytes: usize,
    /// Files may be read below these folders only.
    pub data_roots: Vec<PathBuf>,
    /// How long running steps may take when the worker is told to stop. In milliseconds.
    pub drain_ms: u64,
    /// Whether the process ends when the worker was asked to drain and holds nothing any more.
    pub exit_when_drained: bool,
}

impl WorkerSettings {
    /// [`Self::heartbeat_ms`] as a duration.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// [`Self::lease_ms`] as a duration.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// [`Self::progress_ms`] as a duration.
    pub fn progress(&self) -> Duration {
        Duration::from_millis(self.progress_ms)
    }

    /// [`Self::gather_ms`] as a duration.
    pub fn gather(&self) -> Duration {
        Duration::from_millis(self.gather_ms)
    }

    /// [`Self::report_timeout_ms`] as a duration.
    pub fn report_timeout(&self) -> Duration {
        Duration::from_millis(self.report_timeout_ms)
    }

    /// [`Self::drain_ms`] as a duration.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// A filter as in RUST_LOG, which wins over it.
    pub log: String,
    /// "text" or "json".
    pub format: String,
}
