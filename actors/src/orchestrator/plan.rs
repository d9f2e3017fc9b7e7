//! Plans a template: runs its analyzers on live workers and judges what they return as if it were to
//! be stored. Nothing is: no task, step or batch is made, here or there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tasker_bus::RequestError;
use tasker_messages::{
    AnalyzerRan, AttemptOutcome, BatchForecast, PlanState, PlanTemplate, Problem, Queue, Refusal,
    RunAnalyzer, Scope, SharedStep, StepFailure, StepPlan, TemplatePlan, code, subject,
};
use tasker_workflow::{StepTemplate, Template, batching, check_result, storable};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::node::Node;
use super::offers::Offered;
use super::plan_request::{Input, PlanRequest};
use super::quota::find_full;
use super::reads::ReadError;

/// Plans that one orchestrator makes at a time; each holds its documents for up to a minute.
const MAX_PLANS: usize = 8;
static PLANS: Semaphore = Semaphore::const_new(MAX_PLANS);

/// How often workers are asked for one step. Which worker of a queue is asked is chance: one in ten
/// that has the handler is missed once in a thousand times.
const MAX_ASKED: u32 = 64;
const PAUSE: Duration = Duration::from_millis(10);
/// The pause after a worker that has no room.
const LONG_PAUSE: Duration = Duration::from_millis(250);
/// How long an answer may be on its way after the analyzer's time is up.
const ON_THE_WAY: Duration = Duration::from_secs(2);

/// Plans a template of one of these namespaces.
///
/// # Errors
/// If there is nothing to plan, because a document is wrong or its namespace foreign, or it cannot be
/// done now.
pub async fn plan_template(
    node: &Node,
    scope: &Scope,
    request: PlanTemplate,
) -> Result<TemplatePlan, Refusal> {
    let busy = "as many plans as may be are being made; try again";
    let _permit = PLANS.try_acquire().map_err(|_| Refusal::retry(code::UNAVAILABLE, busy))?;
    let deadline = Instant::now() + Duration::from_secs(PlanTemplate::MAX_SECONDS);
    let settings = Arc::clone(&node.settings);
    // Away from the threads that everything else waits for.
    let read = spawn_blocking(move || {
        let environment = Some(settings.node.environment.as_str()).filter(|name| !name.is_empty());
        PlanRequest::read(&request, environment, settings.outcomes.max_result_bytes)
    });
    let request = Arc::new(read.await.map_err(|error| lost(&error))??);
    let template = &request.template;
    scope.check(template.namespace.as_str())?;
    let mut plan = TemplatePlan {
        namespace: template.namespace.clone(),
        name: template.name.clone(),
        version: template.version.clone(),
        ok: false,
        violations: request.unfit.clone(),
        warnings: Vec::new(),
        steps: Vec::new(),
    };
    let mut met = HashMap::new();
    if request.unfit.is_empty() {
        plan.violations.extend(limits_reached(node, template).await?);
        for step in request.batchable_steps() {
            plan.steps.push(plan_step(node, &request, step, deadline, &mut met).await?);
        }
    }
    plan.warnings = node.offers.warnings_beside(&met, template);
    let is_fine = |step: &StepPlan| step.violations.is_empty();
    plan.ok = plan.violations.is_empty() && plan.steps.iter().all(is_fine);
    Ok(plan)
}

fn lost(error: &tokio::task::JoinError) -> Refusal {
    tracing::error!(%error, "a plan was lost");
    Refusal::new(code::INTERNAL, "the plan was lost; the log has the cause")
}

/// Why a task of the template would not be accepted now, whatever its context.
async fn limits_reached(node: &Node, template: &Template) -> Result<Vec<Problem>, Refusal> {
    let mut problems = Vec::new();
    let (steps, most) = (template.submission().steps.len(), node.settings.submit.max_static_steps);
    if steps > most as usize {
        let message = format!("{steps} steps are more than the limit of {most}");
        problems.push(Problem::new(code::TOO_LARGE, message).at("steps"));
    }
    let full = find_full(node, &template.namespace).await;
    let full = full.map_err(|error| ReadError::from(error).into_refusal())?;
    problems.extend(full.map(|full| Problem::new(&full.code, full.message).at("namespace_name")));
    Ok(problems)
}

async fn plan_step(
    node: &Node,
    request: &Arc<PlanRequest>,
    step: &StepTemplate,
    deadline: Instant,
    met: &mut HashMap<Queue, Offered>,
) -> Result<StepPlan, Refusal> {
    let mut plan = StepPlan {
        step: step.name.clone(),
        state: PlanState::Refused,
        needs: Vec::new(),
        violations: Vec::new(),
        execution_ms: None,
        batch: None,
    };
    let shared = match request.input_of(step) {
        Input::Known(shared) => *shared,
        Input::Missing(missing) => {
            (plan.state, plan.needs) = (PlanState::NeedsResults, missing);
            return Ok(plan);
        }
        Input::NotChosen => {
            plan.state = PlanState::NotChosen;
            return Ok(plan);
        }
    };
    let mut ran = match ask(node, &request.template, step, shared, deadline).await {
        Ok(ran) => ran,
        Err(problem) => {
            plan.violations.push(problem);
            return Ok(plan);
        }
    };
    plan.execution_ms = Some(ran.execution_ms);
    let worker = met.entry(step.handler.queue.clone()).or_default();
    worker.resolves |= ran.resolves;
    worker.callables.extend(std::mem::take(&mut ran.callables));
    let (judged, judged_step) = (Arc::clone(request), step.clone());
    let max_bytes = node.settings.outcomes.max_result_bytes;
    let most = node.settings.batches.max_members;
    let judging =
        spawn_blocking(move || judge(&judged.template, &judged_step, ran, max_bytes, most));
    match judging.await.map_err(|error| lost(&error))? {
        Ok((mut batch, problems)) => {
            let namespace = &request.template.namespace;
            batch.max_running = node.limits.max_running(namespace, &batch.queue);
            (plan.state, plan.violations) = (PlanState::Planned, problems);
            plan.batch = Some(batch);
        }
        Err(problem) => plan.violations.push(problem),
    }
    Ok(plan)
}

/// Judges what an analyzer returned in the order in which that of a step is judged.
fn judge(
    template: &Template,
    step: &StepTemplate,
    ran: AnalyzerRan,
    max_bytes: usize,
    max_members: u32,
) -> Result<(BatchForecast, Vec<Problem>), Problem> {
    let result = match ran.outcome {
        AttemptOutcome::Succeeded(result) => Box::<str>::from(result),
        AttemptOutcome::Failed(failure) => return Err(problem_of(failure)),
    };
    storable(&result, max_bytes).map_err(problem_of)?;
    batching::check_page(None, &ran.cursors)?;
    let appended = (!ran.cursors.is_empty()).then_some(ran.cursors.len() as u32);
    let plan =
        batching::plan(template, step, &result, appended, max_members).map_err(problem_of)?;
    if let Some(schema) = &step.result_schema {
        check_result(schema, &result).map_err(problem_of)?;
    }
    Ok(batching::forecast(template, step, &result, plan, &ran.cursors))
}

fn problem_of(failure: StepFailure) -> Problem {
    let again = if failure.retryable { "; a step would be tried again" } else { "" };
    Problem::new(&failure.code, format!("{}{again}", failure.message))
}

/// Lets a live worker of the step's queue run its handler. One that does not have it, or is busy, says
/// so, and others are asked.
async fn ask(
    node: &Node,
    template: &Template,
    step: &StepTemplate,
    shared: SharedStep,
    deadline: Instant,
) -> Result<AnalyzerRan, Problem> {
    let (queue, callable) = (&step.handler.queue, &step.handler.callable);
    let subject = subject::plan(&template.namespace, queue);
    let mut request = RunAnalyzer { step: step.name.to_string(), time_limit_ms: 0, shared };
    let mut why = String::new();
    for _ in 0..MAX_ASKED {
        let left = deadline.saturating_duration_since(Instant::now());
        request.time_limit_ms = left.as_millis() as u64;
        if request.time_limit_ms == 0 {
            return Err(out_of_time("the time of the plan was up before the analyzer could run"));
        }
        let reply_to = subject::planned(&template.namespace, Uuid::now_v7().simple());
        let time = left + ON_THE_WAY;
        let answer = node.bus.request_with_reply_to(subject.clone(), reply_to, &request, time);
        let mut pause = PAUSE;
        why = match answer.await {
            Ok(ran) => return Ok(ran),
            Err(RequestError::TimedOut { .. }) => {
                let message = "no answer in time: the analyzer blocks its thread, or its worker has \
                               gone";
                return Err(out_of_time(message));
            }
            Err(RequestError::NoResponders { .. }) => "nobody serves the queue".to_owned(),
            Err(RequestError::Refused(refusal)) if refusal.retryable => {
                if refusal.code == code::UNAVAILABLE {
                    pause = LONG_PAUSE;
                }
                refusal.to_string()
            }
            Err(error) if error.is_retryable() => error.to_string(),
            Err(RequestError::Refused(refusal)) => {
                return Err(Problem::new(&refusal.code, refusal.message));
            }
            Err(error) => {
                tracing::warn!(%error, "an analyzer could not be planned");
                return Err(Problem::new(code::PLAN_NOT_POSSIBLE, error.to_string()));
            }
        };
        tokio::time::sleep(pause).await;
    }
    let message = format!(
        "no live worker of the queue `{queue}` that was asked could run `{callable}`: {why}"
    );
    Err(Problem::new(code::PLAN_UNSERVED, message))
}

fn out_of_time(message: &str) -> Problem {
    Problem::new(code::PLAN_TIMEOUT, message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::to_raw_value};
    use tasker_messages::CursorConfig;
    use tasker_messages::cursor::create_cursor_configs;

    use super::*;

    const TEMPLATE: &str = "name: t\nnamespace_name: n\nversion: 1.0.0\nsteps:\n\
        - {name: split, type: batchable, handler: {callable: x}, result_schema: {required: [rows]}}\n\
        - {name: work, type: batch_worker, dependencies: [split], handler: {callable: x}}\n\
        - {name: join, type: deferred_convergence, dependencies: [work], handler: {callable: x}}\n";

    fn judged(
        outcome: AttemptOutcome,
        cursors: Vec<CursorConfig>,
    ) -> Result<(String, u32), String> {
        let template = Template::parse(TEMPLATE.as_bytes()).expect("a template");
        let (_, step) = template.step("split").expect("a step");
        let ran = AnalyzerRan {
            outcome,
            cursors,
            execution_ms: 1,
            callables: Vec::new(),
            resolves: false,
        };
        judge(&template, step, ran, 1_000, 50)
            .map(|(batch, _)| (batch.form, batch.members))
            .map_err(|problem| problem.code)
    }

    fn returned(result: Value) -> AttemptOutcome {
        AttemptOutcome::Succeeded(to_raw_value(&result).expect("JSON"))
    }

    fn range(count: u32) -> Value {
        json!({"type": "create_batches", "worker_template_name": "work", "worker_count": count,
            "total_items": count, "cursor_range": {"start": 0, "end": count, "batch_size": 1}})
    }

    #[test]
    fn outcomes_are_judged_as_those_of_steps() {
        let with =
            |outcome: Value| returned(json!({"rows": 1, "batch_processing_outcome": outcome}));
        let appended = |count: u32| {
            let mut outcome = range(count);
            outcome.as_object_mut().and_then(|o| o.remove("cursor_range"));
            outcome["cursors_appended"] = count.into();
            with(outcome)
        };
        let pages = create_cursor_configs(7, 7);
        let mut turned = pages.clone();
        turned.reverse();
        let table = [
            (with(range(50)), vec![], Ok(("cursor_range", 50))),
            (with(range(51)), vec![], Err(code::BATCH_TOO_LARGE)),
            (with(json!({"type": "no_batches"})), vec![], Ok(("no_batches", 1))),
            (
                with(json!({"outcome_type": "NoBatches"})),
                vec![],
                Err(code::BATCH_OUTCOME_OLD_SHAPE),
            ),
            (returned(json!(7)), vec![], Err(code::BATCH_OUTCOME_INVALID)),
            (
                returned(json!({"batch_processing_outcome": {"type": "no_batches"}})),
                vec![],
                Err(code::RESULT_SCHEMA_VIOLATION),
            ),
            (returned(json!({"x": "y".repeat(1_000)})), vec![], Err(code::RESULT_TOO_LARGE)),
            (appended(7), pages.clone(), Ok(("cursors_appended", 7))),
            (appended(6), pages.clone(), Err(code::BATCH_COUNT_MISMATCH)),
            (appended(7), turned, Err(code::BATCH_ID_INVALID)),
            // Appended, but not concluded.
            (with(range(7)), pages, Err(code::BATCH_COUNT_MISMATCH)),
        ];
        for (outcome, cursors, expect) in table {
            let expect = expect.map(|(form, n)| (form.to_owned(), n)).map_err(str::to_owned);
            let shown = format!("{outcome:?}");
            assert_eq!(judged(outcome, cursors), expect, "{shown}");
        }
    }
}
