//! Vocabulary of Tasker: ids, states, wire messages, subjects and cursor arithmetic.
//!
//! Everything that two processes say to each other is a type of this crate. It does no input or
//! output, reads no clock and knows no randomness.

pub mod access;
mod audit;
mod batch_inputs;
mod batch_outcome;
mod checkpoint;
mod claim;
pub mod code;
pub mod cursor;
mod dead_letter;
mod diagnosis;
mod domain_event;
mod heartbeat;
mod identity;
mod ids;
pub mod json;
mod misfit;
mod name;
mod namespace;
mod outcome_report;
mod page;
mod plan;
mod problem;
mod protocol;
mod queue_list;
mod recovery;
mod repair;
mod reply;
mod state;
mod step_kind;
pub mod subject;
mod suggest;
mod task_request;
mod token;
mod verification;
mod view;
mod why;
mod work_item;

pub use audit::{BatchAudit, Check};
pub use batch_inputs::{BatchMetadata, BatchWorkerInputs, FailureStrategy};
pub use batch_outcome::{BatchProcessingOutcome, CreateBatches, CursorRange, CursorSource};
pub use checkpoint::{
    Checkpoint, CheckpointVerdict, GetCheckpoint, SaveCheckpoint, StoredCheckpoint,
};
pub use claim::{
    Claim, ClaimReply, ClaimRequest, ClaimVerdict, DropReason, ReleaseReply, ReleaseRequest,
    ReleasedStep,
};
pub use cursor::CursorConfig;
pub use dead_letter::{
    DeadLetter, DeadLetterGroup, DeadLetterGroups, DeadLetterKind, DeadLetterList, DeadLetterView,
    Purge, Purged, Redriven,
};
pub use diagnosis::{Condition, Diagnosis, Finding};
pub use domain_event::{DomainEvent, LeftOut};
pub use heartbeat::{Heartbeat, Hint, QueueLoad, RunningStep};
pub use identity::Identity;
pub use ids::{BatchId, NodeId, StepId, TaskId, TemplateId, TokenId, WorkerId};
pub use name::{EventName, InvalidName, Namespace, Queue, StepName};
pub use namespace::{NamespaceList, NamespaceView, QueueLimits, SetNamespace, SetQueue};
pub use outcome_report::{
    AttemptFinished, AttemptOutcome, NextStep, OutcomeReport, OutcomeVerdicts, StepFailure, Verdict,
};
pub use page::{
    AppendCursors, CursorsAppended, GetMembers, GetResult, GetShared, MemberResult, MembersPage,
    StoredResult,
};
pub use plan::{
    AnalyzerRan, BatchForecast, BatchSizes, PlanState, PlanTemplate, RunAnalyzer, StepPlan,
    TemplatePlan,
};
pub use problem::Problem;
pub use protocol::check_protocol;
pub use queue_list::{Introduction, QueueList, QueueRef};
pub use recovery::{Recovery, RecoveryKind};
pub use repair::{RepairStep, Repaired, RepairedBatch, Retry, StepAction, check_reason};
pub use reply::{Refusal, Reply};
pub use state::{BatchState, StepState, TaskState, UnknownState};
pub use step_kind::StepKind;
pub use suggest::nearest;
pub use task_request::{Accepted, GetTask, TaskRequest, WaitTask};
pub use token::{Role, Scope, TokenState, TokenView, check_token_name};
pub use verification::{Invariant, Offender, Verification};
pub use view::{
    BatchView, CheckpointView, DrainWorker, EventView, FailedAttempt, ResultMetadata, StepHistory,
    StepPage, StepResults, StepView, TaskList, TaskSummary, TaskView, TemplateList,
    TemplateSummary, TemplateView, WorkerList, WorkerView,
};
pub use why::{Reason, ReasonCode, Why};
pub use work_item::{
    BatchSummary, BundledMember, DependencyResult, ProcessBatchableStep, SharedStep, SplitWishes,
    WorkItem,
};

/// Version of the wire protocol, sent in the header [`PROTOCOL_HEADER`] of every message.
///
/// A receiver refuses a message of another major version; within one version fields are only added.
pub const PROTOCOL_VERSION: &str = "1";

/// Name of the header that carries [`PROTOCOL_VERSION`].
pub const PROTOCOL_HEADER: &str = "Tasker-Protocol";

/// Header that carries a caller's idempotency key on `tasker.submit` and `tasker.enqueue`.
pub const IDEMPOTENCY_HEADER: &str = "Tasker-Idempotency-Key";
