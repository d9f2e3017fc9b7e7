//! Every rule of Tasker, pure and synchronous.
//!
//! A rule takes values and returns data: a plan, a verdict, a list of problems. Nothing here does
//! input or output, reads a clock or knows randomness; who needs those brings them along.

pub mod batching;
mod claim;
mod convergence;
mod decision;
mod delivery;
mod dispatch;
mod event;
mod graph;
mod lifecycle;
pub mod model;
mod quota;
mod repair;
mod retry;
mod schema;
mod shares;
mod storable;
mod stray;
mod template;
#[cfg(test)]
mod testing;
mod transition;
mod why;

pub use claim::{ClaimDecision, ClaimFacts, decide_claim};
pub use convergence::{
    BatchFact, Choice, ConvergencePlan, Ending, StepFact, TaskFacts, converge, joined_batches,
    undecided_steps, unfounded_steps,
};
pub use decision::{choose, stored_choice};
pub use delivery::{AfterReport, Dispatched, Meeting, after_report, meet};
pub use dispatch::{Share, Source, WindowLimits, publishable, share_out, window_size};
pub use event::{
    AttemptEnd, EventCondition, EventTemplate, UnknownCondition, attempt_end, events_of,
};
pub use graph::{PlannedStep, SubmissionPlan};
pub use lifecycle::{
    Lifecycle, Review, StalenessAction, StepPhase, StepTiming, TaskTiming, overdue,
};
pub use quota::{Applicant, admit};
pub use repair::{RepairAction, RepairFacts, check_repair, check_repaired_task};
pub use retry::{Backoff, NextAttempt, RetryPolicy, UnknownBackoff, next_attempt};
pub use schema::{Schema, Violation, check_context, check_result};
pub use shares::{QueueUse, next_shares, share_limit};
pub use storable::storable;
pub use template::{BatchConfig, Handler, StepTemplate, Template, compare_versions};
pub use transition::{Refused, StepEvent, TaskEvent, step_transition, task_end, task_transition};
pub use why::{Lease, Offer, StepDetail, TaskDetail, TaskStop, why};
