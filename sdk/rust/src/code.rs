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
/// A URL cannot be parsed, holds credentials, has no host, or leads out of its base URL.
pub const API_URL_INVALID: &str = "API_URL_INVALID";
/// A request or client was given what HTTP cannot carry: a method, header, body, certificate.
pub const API_REQUEST_INVALID: &str = "API_REQUEST_INVALID";
/// A URL leads to an address that is not public and not allowed, or is neither http nor https.
pub const API_ADDRESS_REFUSED: &str = "API_ADDRESS_REFUSED";
/// The certificate of a service is not trusted.
pub const API_TLS_REFUSED: &str = "API_TLS_REFUSED";
/// A service could not be connected to, or its connection broke.
pub const API_UNREACHABLE: &str = "API_UNREACHABLE";
/// A service did not answer in time.
pub const API_TIMEOUT: &str = "API_TIMEOUT";
/// A service answered with a status that another attempt may not meet.
pub const API_STATUS_RETRYABLE: &str = "API_STATUS_RETRYABLE";
/// A service answered with a status that another attempt would only repeat.
pub const API_STATUS_REFUSED: &str = "API_STATUS_REFUSED";
/// A service redirected a request that does not follow.
pub const API_REDIRECT_REFUSED: &str = "API_REDIRECT_REFUSED";
/// The body of an answer is over its limit.
pub const API_BODY_TOO_LARGE: &str = "API_BODY_TOO_LARGE";
/// The body of an answer is not what its reader expects.
pub const API_BODY_INVALID: &str = "API_BODY_INVALID";
/// A page of an answer has no items where they should be, or leads to another origin.
pub const API_PAGE_INVALID: &str = "API_PAGE_INVALID";
/// The pages of an answer lead in a circle, or there are more than their limit.
pub const API_PAGES_ENDLESS: &str = "API_PAGES_ENDLESS";
/// The worker's environment does not hold a secret that the handler reads from it.
pub const API_SECRET_MISSING: &str = "API_SECRET_MISSING";
