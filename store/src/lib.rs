//! The only crate of Tasker with SQL.
//!
//! Each file holds the statements of one purpose; each function says what it does to rows. Rules
//! about states are calls into `tasker_workflow`. All statements are set-based: none is issued per
//! step. Locks are taken in one order everywhere: steps by id, outcomes, child steps by id, batches by
//! id, tasks by id.

mod address;
mod apply;
mod batch_views;
mod cancel;
mod checkpoints;
mod claims;
mod convergence;
mod costs;
mod counters;
mod cursors;
mod dead_letters;
mod dispatch;
mod doctor;
mod error;
mod events;
mod expansion;
mod floor;
mod leases;
mod lifecycle;
mod member_rows;
mod migrations;
#[cfg(feature = "mutants")]
mod mutants;
mod namespaces;
mod new_batch;
mod outcomes;
mod pool;
mod quick;
mod reconcile;
mod release;
mod repair;
mod replan;
mod retention;
mod retries;
mod sealing;
mod settling;
mod shared;
mod step_rows;
mod submit;
mod task_views;
mod templates;
mod tokens;
mod verify;
mod views;
mod why;
mod workers;

pub use cancel::Cancelled;
pub use claims::{ClaimTerms, Granted, Reclaim};
pub use convergence::{ConvergeCandidates, Converged};
pub use costs::ServerCounters;
pub use counters::FinishedTask;
pub use cursors::{NewPage, PreviousPage};
pub use dead_letters::{DeadLetterFilter, KeptMessage, RefusedMessage};
pub use dispatch::{MemberRow, OpenBatch, ReadyStep, SentSpan, Written};
pub use doctor::{Late, LateKind};
pub use error::StoreError;
pub use events::{AttemptKey, EndedAttempt};
pub use expansion::{Chunk, Expandable, ExpandingBatch, MemberSource, Sealed};
pub use floor::Floor;
pub use lifecycle::Reviewed;
pub use migrations::{Migrated, Schema, migrate};
pub use namespaces::NamespaceLimits;
pub use new_batch::{NewBatch, NewMember};
pub use outcomes::{
    Applied, Finished, FinishedAttempt, JudgedStep, QUICK_MEMBER_MS, UnsettledStep,
};
pub use pool::Store;
pub use reconcile::{BundledBatch, Dispatched, EpochState, Lost};
pub use repair::{RepairDone, RepairRequest, RepairTarget};
pub use retention::{Expired, Expiry, Purged};
pub use shared::{KnownResults, shared_step};
pub use submit::{NewTask, SubmitVerdict};
pub use templates::{StoredTemplate, TemplateVersion};
pub use tokens::{ApiToken, KnownToken, NewToken};
pub use verify::VerifyRequest;
pub use workers::not_heard_of;

#[cfg(test)]
mod tests;
