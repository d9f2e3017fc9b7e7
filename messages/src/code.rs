//! Stable error codes. A code never changes its meaning; `docs/reference.md` lists them.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        $($(#[$doc])* pub const $name: &str = stringify!($name);)+

        /// Every code.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

codes! {
    /// The document is not valid JSON or YAML.
    INVALID_SYNTAX;
    /// The document is not UTF-8 or holds characters that cannot be stored.
    INVALID_ENCODING;
    /// A document, value or list is over its limit.
    TOO_LARGE;
    /// A document is nested deeper than its limit.
    TOO_DEEP;
    /// A key occurs twice in one object.
    DUPLICATE_KEY;
    /// A number cannot be represented.
    NUMBER_OUT_OF_RANGE;
    /// A text holds a NUL character.
    NUL_CHARACTER;
    /// A key that does not exist.
    UNKNOWN_KEY;
    /// A key that must be there is not.
    MISSING_KEY;
    /// A value of the wrong type.
    WRONG_TYPE;
    /// A value outside what its key allows.
    INVALID_VALUE;
    /// A name that breaks its rule.
    INVALID_NAME;
    /// Two spellings of the same setting.
    CONFLICTING_KEYS;
    /// YAML anchors, aliases, merge keys or tags.
    YAML_FEATURE_REFUSED;
    /// Two steps with one name.
    DUPLICATE_STEP;
    /// A dependency on a step that does not exist.
    UNKNOWN_DEPENDENCY;
    /// Steps that depend on each other in a circle.
    DEPENDENCY_CYCLE;
    /// A batchable step without a worker, or a worker without its batchable step.
    BATCH_STRUCTURE;
    /// A deferred convergence that has nothing to converge.
    EMPTY_CONVERGENCE;
    /// A decision that has nothing to decide about.
    DECISION_STRUCTURE;
    /// An `input_schema`, a `result_schema` or the schema of an event that is no usable JSON Schema.
    INVALID_SCHEMA;
    /// The context of a task does not fit the `input_schema` of its template.
    CONTEXT_SCHEMA_VIOLATION;
    /// No template of this name and version.
    TEMPLATE_NOT_FOUND;
    /// Another template is stored under this name and version.
    TEMPLATE_CONFLICT;
    /// No task of this id.
    TASK_NOT_FOUND;
    /// The idempotency key was used for a different request.
    IDEMPOTENCY_CONFLICT;
    /// The task has already ended.
    TASK_ENDED;
    /// No such step in the task.
    STEP_NOT_FOUND;
    /// No such batch in the task.
    BATCH_NOT_FOUND;
    /// No dead letter of this number.
    DEAD_LETTER_NOT_FOUND;
    /// No worker of this id was heard of within the last hour.
    WORKER_NOT_FOUND;
    /// The worker has not been heard of lately, so that nothing can be asked of it.
    WORKER_SILENT;
    /// The dead letter was redriven before.
    ALREADY_REDRIVEN;
    /// Only a step that failed can be repaired.
    STEP_NOT_FAILED;
    /// A convergence has already run with the failure that is to be repaired.
    AGGREGATOR_RAN;
    /// A step that a cascading repair would take back has not ended.
    DESCENDANT_RUNS;
    /// Nothing of the task or batch has failed and can be retried.
    NOTHING_TO_RETRY;
    /// The namespace in the document differs from the one in the subject or credential.
    FOREIGN_NAMESPACE;
    /// The request has no token that is accepted.
    NOT_AUTHENTICATED;
    /// The role of the token does not allow the request.
    NOT_PERMITTED;
    /// More requests than one token, or one address without a token, may send.
    TOO_MANY_REQUESTS;
    /// The HTTP API would answer everybody who reaches the machine.
    API_UNPROTECTED;
    /// Another token that is not revoked has this name.
    TOKEN_EXISTS;
    /// There is no such token.
    TOKEN_NOT_FOUND;
    /// The message is of another protocol version.
    PROTOCOL_VERSION;
    /// The request is malformed.
    INVALID_REQUEST;
    /// No such route or method.
    NOT_FOUND;
    /// The server cannot take the request now; try again with the same key.
    UNAVAILABLE;
    /// The namespace has as many open tasks as it may have; try again when one has ended.
    NAMESPACE_FULL;
    /// The server failed; the message names the incident, the log has the cause.
    INTERNAL;

    /// The handler returned an error without a code of its own.
    HANDLER_ERROR;
    /// The handler panicked.
    HANDLER_PANIC;
    /// The handler ran longer than `timeout_seconds`.
    HANDLER_TIMEOUT;
    /// No handler of this name is registered on the worker.
    HANDLER_NOT_FOUND;
    /// The handler has no entry point of this name.
    HANDLER_METHOD_NOT_FOUND;
    /// No resolver of this name is registered on the worker.
    RESOLVER_NOT_FOUND;
    /// The handler's result is over the limit.
    RESULT_TOO_LARGE;
    /// The handler's result cannot be stored (NUL characters, nesting).
    RESULT_NOT_STORABLE;
    /// The handler's result does not fit the `result_schema` of its step.
    RESULT_SCHEMA_VIOLATION;
    /// A checkpoint has no more items than the one before it.
    CHECKPOINT_NOT_AHEAD;
    /// A checkpoint is over the limit or cannot be stored.
    CHECKPOINT_NOT_STORABLE;
    /// Workers vanished while they ran the step, as often as its retry budget allows.
    STEP_POISONED;
    /// The outcome of a batchable step is malformed.
    BATCH_OUTCOME_INVALID;
    /// The old discriminator `outcome_type` instead of `type`.
    BATCH_OUTCOME_OLD_SHAPE;
    /// The outcome names a worker template that the batchable step does not have.
    BATCH_WORKER_TEMPLATE_UNKNOWN;
    /// `worker_count`, ranges and pages do not agree.
    BATCH_COUNT_MISMATCH;
    /// Two ranges with one `batch_id`, or an unusable one.
    BATCH_ID_INVALID;
    /// Integer ranges that are inverted, empty or overlap.
    BATCH_RANGE_INVALID;
    /// More members than the limit allows.
    BATCH_TOO_LARGE;
    /// The outcome of a decision is malformed.
    DECISION_OUTCOME_INVALID;
    /// The old discriminator `outcome_type` instead of `type`, or CamelCase variants.
    DECISION_OUTCOME_OLD_SHAPE;
    /// The outcome of a decision names a step that the decision cannot create.
    DECISION_STEP_INVALID;
    /// Every member of a batch failed, so that nothing was left to aggregate.
    BATCH_ALL_FAILED;
    /// More members of a batch failed than it tolerates, so that it was stopped.
    BATCH_STOPPED;
    /// The task, or a step of it, took longer than the template's `lifecycle` allows.
    TASK_STALE;
    /// Of a plan: no live worker that was asked could run the analyzer.
    PLAN_UNSERVED;
    /// Of a plan: the analyzers took longer than a plan may, or their worker vanished.
    PLAN_TIMEOUT;
    /// Of a plan: the analyzer did what needs a step: it yielded, or appended too many ranges.
    PLAN_NOT_POSSIBLE;
    /// Of a plan: integer ranges that leave a gap. A step may do so.
    BATCH_RANGE_GAP;
}

#[cfg(test)]
mod tests {
    #[test]
    fn codes_are_unique() {
        let mut all = super::ALL.to_vec();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), super::ALL.len());
    }
}
