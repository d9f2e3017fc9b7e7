//! The way of one step from its slot to its outcome.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde_json::json;
use tasker_messages::{
    AttemptFinished, AttemptOutcome, ReleasedStep, SharedStep, StepFailure, StepKind, WorkItem,
    code,
};
use tasker_sdk::{
    ContextParts, RegisteredHandler, StepContext, StepError, StepResult, code as sdk_code,
};
use tokio::sync::OwnedSemaphorePermit;

use super::core::{Core, Stage};
use super::held::Hold;
use super::judge::{Ending, failed as failed_with, judge, panicked};
use super::place::Place;

/// A step that may be run.
pub(crate) struct Step {
    pub(crate) item: WorkItem,
    pub(crate) place: Arc<Place>,
    pub(crate) attempt: u32,
    pub(crate) tries: u32,
    pub(crate) hold: Hold,
    /// Its slot, if one was kept for it.
    pub(crate) slot: Option<OwnedSemaphorePermit>,
}

/// What a step ended with.
struct Outcome {
    kind: StepKind,
    has_schema: bool,
    has_events: bool,
    outcome: AttemptOutcome,
    ran: Duration,
}

/// How a run of a step came to its end.
enum Ended {
    /// With an outcome.
    With(Outcome),
    /// It has stored a checkpoint and wants to go on later.
    Yielded,
    /// Without one: it was taken from its hold, or time is up.
    Without,
}

/// Runs a step as soon as there is a slot, and hands its outcome over. A step that is taken from
/// its hold meanwhile ends without one.
pub(crate) async fn run_step(mut step: Step) {
    let core = Arc::clone(&step.hold.core);
    let slot = match step.slot.take() {
        Some(slot) => slot,
        None => match wait_for_slot(&core, &step).await {
            Waited::Got(slot) => slot,
            Waited::Taken => return,
            Waited::Closed => return step.hold.leave_behind(),
        },
    };
    if !core.held.seated(&step.hold) {
        return;
    }
    let outcome = match core.shared.of(&core.bus, &step.place.namespace, &step.item).await {
        Ok(shared) => execute(&step, shared).await,
        Err(error) => Ended::With(Outcome {
            // Nobody said what the step is; a range tells a member from the rest.
            kind: match step.item.cursor {
                Some(_) => StepKind::BatchWorker,
                None => StepKind::Standard,
            },
            has_schema: false,
            // Nor that.
            has_events: true,
            outcome: failed_with(error),
            ran: Duration::ZERO,
        }),
    };
    let Outcome { kind, has_schema, has_events, outcome, ran } = match outcome {
        Ended::With(outcome) => outcome,
        Ended::Yielded => return yield_step(step).await,
        Ended::Without => return,
    };
    let Some(dispatch_seq) = core.held.end(&step.hold) else { return };
    match outcome {
        AttemptOutcome::Succeeded(_) => core.meters.succeeded.increment(1),
        AttemptOutcome::Failed(_) => core.meters.failed.increment(1),
    }
    let finished = AttemptFinished {
        step_id: step.item.step_id,
        attempt: step.attempt,
        dispatch_seq,
        kind,
        has_schema,
        has_events,
        execution_ms: u32::try_from(ran.as_millis()).unwrap_or(u32::MAX),
        outcome,
    };
    core.outbox.push(finished, step.place, step.item.node, step.hold).await;
    drop(slot);
}

/// How long a step that was fetched ahead waits for a slot before it is left to other workers: those before
/// it are not as quick as the ones that it was fetched for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What waiting for a slot came to.
enum Waited {
    Got(OwnedSemaphorePermit),
    /// The step is not this worker's any more.
    Taken,
    /// There are no slots any more.
    Closed,
}

/// Waits for a slot. Whoever waits for too long gives back whatever was fetched ahead.
async fn wait_for_slot(core: &Arc<Core>, step: &Step) -> Waited {
    let mut slot = pin!(Arc::clone(&core.slots).acquire_owned());
    loop {
        match tokio::time::timeout(PATIENCE, &mut slot).await {
            Ok(Ok(slot)) => return Waited::Got(slot),
            Ok(Err(_)) => return Waited::Closed,
            Err(_) => Core::give_back_surplus(core, PATIENCE),
        }
        if !core.held.is_current(&step.hold) {
            return Waited::Taken;
        }
    }
}

/// Gives a step back, as another attempt that costs nothing of its budget: this one has stored how far
/// it has come. Its message is acknowledged after the answer, when the next one is on the way.
async fn yield_step(step: Step) {
    let core = Arc::clone(&step.hold.core);
    let Some(dispatch_seq) = core.held.end(&step.hold) else { return };
    metrics::counter!("tasker_worker_steps_yielded_total").increment(1);
    let step_id = step.item.step_id;
    let back = ReleasedStep { step_id, attempt: step.attempt, dispatch_seq, unstarted: false };
    if !core.give_back_steps(&step.place.namespace, vec![back]).await.is_empty()
        && let Some(ack) = core.held.settle_one(step.hold)
    {
        ack.ack().await;
    }
}

async fn execute(step: &Step, shared: Arc<SharedStep>) -> Ended {
    let core = &step.hold.core;
    let kind = shared.kind;
    let timeout = shared.timeout_ms.map(Duration::from_millis);
    if !core.held.start(&step.hold, kind, timeout) {
        return Ended::Without;
    }
    let (has_schema, has_events) = (shared.has_schema, shared.has_events);
    let ended = |outcome, ran| Ended::With(Outcome { kind, has_schema, has_events, outcome, ran });
    let failed = |error| ended(failed_with(error), Duration::ZERO);
    let handler = match find_handler(step, &shared) {
        Ok(handler) => handler,
        Err(error) => return failed(error),
    };
    let cursor = match step.item.cursor_config() {
        Ok(cursor) => cursor,
        Err(error) => {
            let message = format!("the range of the step cannot be read: {error}");
            return failed(StepError::permanent(code::INVALID_VALUE, message));
        }
    };
    let ctx = StepContext::new(ContextParts {
        namespace: step.place.namespace.clone(),
        task_id: step.item.task_id,
        step_id: step.item.step_id,
        name: Arc::clone(&step.item.name),
        attempt: step.attempt,
        tries: step.tries,
        shared,
        cursor,
        cancelled: core.cancelled.watch(&step.place.namespace, &step.item),
        backend: Arc::clone(&step.place.backend),
        files: Arc::clone(&core.files),
        is_plan: false,
    });
    let started = Instant::now();
    let Some(ending) = call(core, &handler, ctx.clone(), timeout).await else {
        return Ended::Without;
    };
    core.ledger.pace.note(started.elapsed());
    let outcome = match ending {
        Ending::Returned(Ok(result)) if result.checkpoint().is_some() => {
            match store_yielded(&ctx, result).await {
                Ok(()) => return Ended::Yielded,
                Err(error) if error.code() == sdk_code::ATTEMPT_SUPERSEDED => {
                    return Ended::Without;
                }
                Err(error) => failed_with(error),
            }
        }
        ending => judge(ending, core.settings.outcomes.max_result_bytes),
    };
    ended(outcome, started.elapsed())
}

/// Looks for the handler of a step; the outer error is a panic of a resolver, which is code of others,
/// like handlers.
pub(crate) fn look_up(
    core: &Core,
    shared: &SharedStep,
) -> std::thread::Result<Result<RegisteredHandler, StepError>> {
    let SharedStep { callable, method, resolver, .. } = shared;
    let find = || core.registry.find(callable, method, resolver.as_deref());
    std::panic::catch_unwind(AssertUnwindSafe(find))
}

/// The handler of a step.
fn find_handler(step: &Step, shared: &SharedStep) -> Result<RegisteredHandler, StepError> {
    let SharedStep { callable, method, .. } = shared;
    let found = match look_up(&step.hold.core, shared) {
        Ok(found) => found,
        Err(payload) => return Err(panicked(payload.as_ref())),
    };
    if let Err(error) = &found {
        metrics::counter!("tasker_worker_missing_handlers_total").increment(1);
        tracing::warn!(callable, method, step.id = %step.item.step_id, %error, "no such handler");
    }
    // By this the orchestrator knows whether another worker has it.
    let wanted = json!({"queue": step.place.queue, "callable": callable});
    found.map_err(|error| error.with_type(StepFailure::UNSERVED).with_context(wanted))
}

async fn store_yielded(ctx: &StepContext, result: StepResult) -> Result<(), StepError> {
    match result.checkpoint() {
        Some(checkpoint) => ctx.store_checkpoint(checkpoint.clone()).await,
        None => Ok(()),
    }
}

/// Calls the handler; `None` if the worker's time is up before it ends.
pub(crate) async fn call(
    core: &Core,
    handler: &RegisteredHandler,
    ctx: StepContext,
    timeout: Option<Duration>,
) -> Option<Ending> {
    // A handler that panics is dropped as a whole; nothing of it is used afterwards.
    let call = AssertUnwindSafe(handler.call(ctx)).catch_unwind();
    let limited = async {
        match timeout {
            Some(limit) => tokio::time::timeout(limit, call).await.map_err(|_| limit),
            None => Ok(call.await),
        }
    };
    let mut stage = core.stage.subscribe();
    tokio::select! {
        biased;
        ended = limited => Some(match ended {
            Ok(Ok(returned)) => Ending::Returned(returned),
            Ok(Err(payload)) => Ending::Panicked(payload),
            Err(limit) => Ending::TimedOut(limit),
        }),
        _killed = stage.wait_for(|stage| *stage >= Stage::Killed) => None,
    }
}
