//! Stable error codes that the SDK itself gives. Handlers are free to use codes of their own;
//! codes of the orchestrator and the worker are in [`tasker_messages::code`].

/// The task context does not fit what the handler reads from it.
pub const VALIDATION_ERROR: &str = "VALIDATION_ERROR";
/// `handler.initialization` does not fit what the handler reads from it.
pub const CONFIG_INVALID: &str = "CONFIG_INVALID";
/// The step does not depend on a step of this name, or that step has no result.
pub const DEPENDENCY_NOT_FOUND: &str = "DEPENDENCY_NOT_FOUND";
/// The step that was asked for ended in error.
pub const DEPENDENCY_FAILED: &str = "DEPENDENCY_FAILED";
/// A member's or dependency's result does not have the shape that its reader expects.
pub const RESULT_SHAPE: &str = "RESULT_SHAPE";
/// The pages of a batch's members do not add up to the batch.
pub const MEMBERS_INCOMPLETE: &str = "MEMBERS_INCOMPLETE";
/// The step is not a batch worker.
pub const NOT_A_BATCH_WORKER: &str = "NOT_A_BATCH_WORKER";
/// A cursor is not of the type that the handler asked for.
pub const CURSOR_INVALID: &str = "CURSOR_INVALID";
/// Another attempt of the step is current, so this one works in vain.
pub const ATTEMPT_SUPERSEDED: &str = "ATTEMPT_SUPERSEDED";
/// The step was asked to stop.
pub const CANCELLED: &str = "CANCELLED";
/// A service asked to be called later.
pub const RATE_LIMITED: &str = "RATE_LIMITED";
/// A path leads outside the worker's data roots.
pub const PATH_OUTSIDE_DATA_ROOTS: &str = "PATH_OUTSIDE_DATA_ROOTS";
/// A file does not exist on the worker.
pub const FILE_NOT_FOUND: &str = "FILE_NOT_FOUND";
/// A file exists but cannot be read.
pub const FILE_NOT_READABLE: &str = "FILE_NOT_READABLE";
