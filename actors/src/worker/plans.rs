//! Runs analyzers that have no step, for whoever plans a template. Asked over the bus by
//! orchestrators; emits answers. What is lost when it dies: analyzers that run, which nobody
//! repeats; whoever asked is told so, or that there was no answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_bus::{Incoming, Subscription};
use tasker_messages::{
    AnalyzerRan, AttemptOutcome, Namespace, PlanTemplate, Refusal, RunAnalyzer, StepId, TaskId,
    code, json, subject,
};
use tasker_sdk::{ContextParts, StepContext, StepError};
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use super::core::{Core, Stage};
use super::execute::{call, look_up};
use super::judge::{Ending, failed, judge, panicked};
use super::plan_backend::PlanBackend;
use crate::loops::Loops;

/// Analyzers that one worker runs at a time for plans, beside its slots; a plan that meets more of them
/// goes to another worker.
const MAX_PLANS: usize = 2;

/// Runs analyzers that have no step.
pub(crate) struct PlansActor;

/// What the actor is told.
pub(crate) enum PlansMessage {
    /// See whether the listeners still run.
    Check,
}

/// What the actor keeps in mind: its listeners end with it.
pub(crate) struct PlansState {
    listeners: Loops,
}

impl Actor for PlansActor {
    type Msg = PlansMessage;
    type State = PlansState;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        myself: ActorRef<PlansMessage>,
        core: Arc<Core>,
    ) -> Result<PlansState, ActorProcessingErr> {
        let mut listeners = Loops::default();
        let permits = Arc::new(Semaphore::new(MAX_PLANS));
        for queue in &core.serves.queues {
            let subjects: Vec<String> = match &core.serves.namespaces {
                Some(named) => named.iter().map(|name| subject::plan(name, queue)).collect(),
                None => vec![subject::plan_wildcard(queue)],
            };
            for subject in subjects {
                let requests = core.bus.subscribe(&subject, Some(subject::PLANNERS)).await?;
                let listener = listen(requests, Arc::clone(&core), Arc::clone(&permits));
                listeners.spawn("worker_plans.requests", listener);
            }
        }
        myself.send_interval(Duration::from_secs(1), || PlansMessage::Check);
        Ok(PlansState { listeners })
    }

    async fn handle(
        &self,
        _: ActorRef<PlansMessage>,
        PlansMessage::Check: PlansMessage,
        state: &mut PlansState,
    ) -> Result<(), ActorProcessingErr> {
        state.listeners.all_go_on()
    }
}

/// Answers at once if it cannot run an analyzer: another worker may.
async fn listen(mut requests: Subscription, core: Arc<Core>, permits: Arc<Semaphore>) {
    while let Some(incoming) = requests.next().await {
        let permit = Arc::clone(&permits).try_acquire_owned().ok();
        let core = Arc::clone(&core);
        tokio::spawn(async move {
            let answer = match permit {
                Some(_) => answer(&core, &incoming).await,
                None => Err(not_now("runs as many plans as it may")),
            };
            // Before whoever asked can ask again.
            drop(permit);
            incoming.answer(answer).await;
        });
    }
}

fn not_now(what: &str) -> Refusal {
    Refusal::retry(code::UNAVAILABLE, format!("the worker {what}; ask another one"))
}

async fn answer(core: &Core, incoming: &Incoming) -> Result<AnalyzerRan, Refusal> {
    incoming.protocol_ok()?;
    let namespace = subject::plan_namespace(&incoming.subject).ok_or_else(|| {
        Refusal::new(code::INVALID_NAME, format!("no valid namespace in `{}`", incoming.subject))
    })?;
    let request: RunAnalyzer = json::decode(&incoming.payload)
        .map_err(|problem| Refusal::of_document("the request", vec![problem]))?;
    if core.stage() != Stage::Serving {
        return Err(not_now("is about to stop"));
    }
    run(core, namespace, request).await
}

/// Runs the handler as a first attempt would.
///
/// # Errors
/// If the handler was not run; another worker may have it.
async fn run(
    core: &Core,
    namespace: Namespace,
    request: RunAnalyzer,
) -> Result<AnalyzerRan, Refusal> {
    let RunAnalyzer { step, time_limit_ms, shared } = request;
    let ended = |outcome, cursors, ran: Duration| AnalyzerRan {
        outcome,
        cursors,
        execution_ms: u32::try_from(ran.as_millis()).unwrap_or(u32::MAX),
        callables: core.registry.callables().map(str::to_owned).collect(),
        resolves: core.registry.resolves(),
    };
    let handler = match look_up(core, &shared) {
        Ok(Ok(handler)) => handler,
        Ok(Err(error)) => return Err(Refusal::retry(error.code(), error.message())),
        Err(payload) => {
            let outcome = failed(panicked(payload.as_ref()));
            return Ok(ended(outcome, Vec::new(), Duration::ZERO));
        }
    };
    let most = Duration::from_secs(PlanTemplate::MAX_SECONDS);
    let plan_limit = Duration::from_millis(time_limit_ms).min(most);
    let own_limit = shared.timeout_ms.map(Duration::from_millis);
    let limit = own_limit.map_or(plan_limit, |own| own.min(plan_limit));
    let backend = Arc::new(PlanBackend::default());
    let (_nobody_cancels, cancelled) = watch::channel(false);
    let ctx = StepContext::new(ContextParts {
        namespace,
        // Of this run alone, so that nothing real goes by them.
        task_id: TaskId::from_uuid(Uuid::now_v7()),
        step_id: StepId::from_uuid(Uuid::now_v7()),
        name: step.into(),
        attempt: 1,
        tries: 0,
        shared: Arc::new(shared),
        cursor: None,
        cancelled,
        backend: Arc::clone(&backend) as _,
        files: Arc::clone(&core.files),
        is_plan: true,
    });
    let started = Instant::now();
    let ending = call(core, &handler, ctx, Some(limit)).await;
    let ending = ending.ok_or_else(|| not_now("has stopped"))?;
    let is_own = own_limit.is_some_and(|own| own <= plan_limit);
    let outcome = conclude(ending, is_own, core.settings.outcomes.max_result_bytes);
    Ok(ended(outcome, backend.take_cursors(), started.elapsed()))
}

/// `is_own_limit`: whether the time limit was the step's own, which would end a real attempt, too.
fn conclude(ending: Ending, is_own_limit: bool, max_result_bytes: usize) -> AttemptOutcome {
    match ending {
        Ending::Returned(Ok(result)) if result.checkpoint().is_some() => {
            let message = "the analyzer yielded, to go on from its checkpoint in another attempt; a \
                           plan has one attempt";
            failed(StepError::permanent(code::PLAN_NOT_POSSIBLE, message))
        }
        Ending::TimedOut(limit) if !is_own_limit => {
            let message = format!(
                "the analyzer ran longer than the {limit:?} that the plan had left; its step may run \
                 longer"
            );
            failed(StepError::retryable(code::PLAN_TIMEOUT, message))
        }
        ending => judge(ending, max_result_bytes),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tasker_messages::Checkpoint;
    use tasker_sdk::StepResult;

    use super::*;

    #[test]
    fn endings_of_plans() {
        let code = |ending, is_own| match conclude(ending, is_own, 1_000) {
            AttemptOutcome::Succeeded(result) => result.get().to_owned(),
            AttemptOutcome::Failed(failure) => failure.code,
        };
        let second = Duration::from_secs(1);
        assert_eq!(code(Ending::TimedOut(second), true), code::HANDLER_TIMEOUT);
        assert_eq!(code(Ending::TimedOut(second), false), code::PLAN_TIMEOUT);
        let checkpoint = Checkpoint {
            cursor: json!(1),
            items_processed: 1,
            accumulated_results: json!(null),
            timestamp: None,
        };
        let yielded = Ending::Returned(Ok(StepResult::yielded(checkpoint)));
        assert_eq!(code(yielded, true), code::PLAN_NOT_POSSIBLE);
        assert_eq!(code(Ending::Returned(Ok(json!(7).into())), true), "7");
    }
}
