//! Stores outcomes of finished attempts. Sent by the gateway; emits ready steps, emptied batches,
//! expansions, retries and ended tasks. What is lost when it dies: reports that were not answered;
//! their workers send them again, and what was committed is answered `duplicate`.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tasker_guards::{CrashPoint, pass};
use tasker_messages::{
    Namespace, NextStep, OutcomeVerdicts, Refusal, StepId, Verdict, WorkItem, code,
};
use tasker_store::{Applied, AttemptKey, FinishedAttempt};
use tokio::sync::oneshot;

use super::Links;
use super::batch_processing::BatchProcessingMessage;
use super::convergence::ConvergenceMessage;
use super::dispatch::DispatchMessage;
use super::events::{self, Marked};
use super::finalizer::FinalizerMessage;
use super::handover::hand_over;
use super::judge::judge;
use super::node::{Node, run_detached};
use super::report_queue::ReportQueue;
use super::timers::TimersMessage;

/// Stores outcomes.
pub(crate) struct OutcomesActor;

/// Finished attempts of one report and whoever waits for the verdicts.
pub(crate) struct Report {
    pub(crate) namespace: Namespace,
    pub(crate) attempts: Vec<FinishedAttempt>,
    pub(crate) answer: oneshot::Sender<Result<OutcomeVerdicts, Refusal>>,
}

/// What the actor is told.
pub(crate) enum OutcomesMessage {
    /// A worker has reported.
    Report(Box<Report>),
    /// A set has been worked off; this is what follows from it.
    Done(Namespace, Box<Applied>),
    /// A step was completed by hand.
    Completed(Namespace, AttemptKey),
    /// Its events were published, or are not.
    Told,
    /// What waited for another set to end has waited long enough.
    Look,
}

/// What the actor keeps in mind.
pub(crate) struct OutcomesState {
    node: Node,
    links: Links,
    queue: ReportQueue,
    /// Whether a [`OutcomesMessage::Look`] will come.
    looks: bool,
}

impl Actor for OutcomesActor {
    type Msg = OutcomesMessage;
    type State = OutcomesState;
    type Arguments = (Node, Links);

    async fn pre_start(
        &self,
        _: ActorRef<OutcomesMessage>,
        (node, links): (Node, Links),
    ) -> Result<OutcomesState, ActorProcessingErr> {
        Ok(OutcomesState { node, links, queue: ReportQueue::default(), looks: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<OutcomesMessage>,
        message: OutcomesMessage,
        state: &mut OutcomesState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            OutcomesMessage::Report(report) => state.take_in(*report),
            OutcomesMessage::Done(namespace, applied) => {
                state.queue.done(&namespace);
                pass_on(&state.links, namespace, *applied);
            }
            OutcomesMessage::Completed(namespace, attempt) => {
                let node = state.node.clone();
                let work = async move {
                    events::publish_completed(&node, &namespace, attempt).await;
                    OutcomesMessage::Told
                };
                run_detached(&myself, work, || OutcomesMessage::Told);
            }
            OutcomesMessage::Told => {}
            OutcomesMessage::Look => state.looks = false,
        }
        let now = Instant::now();
        while let Some(set) = state.queue.next_set(&state.node.settings.outcomes, now) {
            let node = state.node.clone();
            let namespace = set[0].namespace.clone();
            let lost = namespace.clone();
            let work = async move {
                let applied = store_reports(&node, set).await;
                OutcomesMessage::Done(namespace, Box::new(applied))
            };
            run_detached(&myself, work, || OutcomesMessage::Done(lost, Box::default()));
        }
        if let Some(wait) = state.queue.waits_for(&state.node.settings.outcomes, now)
            && !state.looks
        {
            state.looks = true;
            myself.send_after(wait, || OutcomesMessage::Look);
        }
        Ok(())
    }
}

impl OutcomesState {
    fn take_in(&mut self, report: Report) {
        let settings = &self.node.settings.outcomes;
        if let Err(report) = self.queue.push(report, settings, Instant::now()) {
            let message = "too many outcomes wait; report again";
            let _worker_gone = report.answer.send(Err(Refusal::retry(code::UNAVAILABLE, message)));
        }
    }
}

/// Tells the actors below what follows. A lost cast is made up for by their sweeps.
pub(crate) fn pass_on(links: &Links, namespace: Namespace, applied: Applied) {
    let expand: Vec<StepId> =
        applied.unsettled.iter().filter(|s| s.expands).map(|s| s.id).collect();
    if !expand.is_empty() {
        links.batch_processing.cast(BatchProcessingMessage::Announce(namespace.clone(), expand));
    }
    let mut converge: Vec<_> =
        applied.unsettled.iter().filter(|s| !s.expands).map(|s| s.task_id).collect();
    converge.extend(applied.emptied.iter().map(|(_, task)| *task));
    if !converge.is_empty() {
        links.convergence.cast(ConvergenceMessage::Check(converge));
    }
    if !applied.ready.is_empty() {
        links.dispatch.cast(DispatchMessage::Released(applied.ready, applied.results));
    }
    if let Some(delay_ms) = applied.next_retry_ms {
        links.timers.cast(TimersMessage::RetryIn(delay_ms));
    }
    if !applied.finished_by_queue.is_empty() {
        let finished = DispatchMessage::Finished(namespace.clone(), applied.finished_by_queue);
        links.dispatch.cast(finished);
    }
    if !applied.limited.is_empty() {
        links.dispatch.cast(DispatchMessage::Remaining(namespace.clone(), applied.limited));
    }
    if !applied.stopped.is_empty() {
        let batches = applied.stopped.iter().map(|(batch, _)| *batch).collect();
        links.finalizer.cast(FinalizerMessage::Stopped(namespace.clone(), batches));
    }
    if !applied.finished_tasks.is_empty() {
        links.finalizer.cast(FinalizerMessage::Finished(applied.finished_tasks));
    }
}

/// Judges and stores reports of one namespace in one transaction, and answers each.
async fn store_reports(node: &Node, reports: Vec<Report>) -> Applied {
    let Some(namespace) = reports.first().map(|r| r.namespace.clone()) else {
        return Applied::default();
    };
    // Of two reports on one step the first counts; the other is answered like it.
    let mut seen = HashSet::new();
    let mut set: Vec<FinishedAttempt> = reports
        .iter()
        .flat_map(|r| &r.attempts)
        .filter(|a| seen.insert((a.step_id, a.attempt)))
        .cloned()
        .collect();
    set.sort_by_key(|a| (a.step_id, a.attempt));
    let marked = events::mark(&set);
    let mut stored = match judge(node, &namespace, &mut set).await {
        Ok(()) => store_halving(node, &namespace, set).await,
        Err(refusal) => Stored { refused: Some(refusal), ..Stored::default() },
    };
    metrics::histogram!("tasker_outcomes_set_size").record(stored.verdicts.len() as f64);
    publish_events(node, &namespace, marked, &mut stored).await;
    let mut items = hand_over(node, &mut stored.applied).await;
    for report in reports {
        let verdicts: Option<Vec<Verdict>> = report
            .attempts
            .iter()
            .map(|a| stored.verdicts.get(&(a.step_id, a.attempt)).copied())
            .collect();
        let next = next_steps(&report, &mut items);
        let answer = verdicts.map(|verdicts| OutcomeVerdicts { verdicts, next }).ok_or_else(|| {
            stored.refused.clone().unwrap_or_else(|| {
                Refusal::retry(code::UNAVAILABLE, "not all outcomes were stored; report again")
            })
        });
        let _worker_gone = report.answer.send(answer);
    }
    pass(CrashPoint::OutcomesAnswered);
    stored.applied
}

/// Publishes the events of what is stored, before anybody is told that it is: a worker that gets no answer
/// reports again, and so they are published in the end. What could not be published is not answered.
async fn publish_events(
    node: &Node,
    namespace: &Namespace,
    marked: Vec<Marked>,
    stored: &mut Stored,
) {
    let ended = events::stored(marked, &stored.verdicts);
    if ended.is_empty() {
        return;
    }
    if let Err(refusal) = events::publish(node, namespace, &ended).await {
        for marked in &ended {
            stored.verdicts.remove(&(marked.key.step_id, marked.key.attempt));
        }
        stored.refused = Some(refusal);
    }
}

/// The steps that follow the outcomes of a report.
fn next_steps(report: &Report, items: &mut HashMap<StepId, WorkItem>) -> Vec<NextStep> {
    if items.is_empty() {
        return Vec::new();
    }
    let follow = |(after, attempt): (usize, &FinishedAttempt)| {
        let after = after as u32;
        items.remove(&attempt.step_id).map(|item| NextStep { after, item })
    };
    report.attempts.iter().enumerate().filter_map(follow).collect()
}

#[derive(Default)]
struct Stored {
    applied: Applied,
    verdicts: HashMap<(StepId, u32), Verdict>,
    refused: Option<Refusal>,
}

/// Stores a set; if a statement fails for a reason that will not pass, halves it until the culprit
/// stands alone, so that it never fails its neighbours.
async fn store_halving(node: &Node, namespace: &Namespace, set: Vec<FinishedAttempt>) -> Stored {
    let lease_ms = node.settings.worker.lease_ms;
    let mut stored = Stored::default();
    let mut rest = vec![set];
    while let Some(mut set) = rest.pop() {
        match node.store.apply_outcomes(namespace, &set, lease_ms).await {
            Ok(applied) => stored.add(&set, applied),
            Err(error) if set.len() > 1 && (!error.is_transient() || error.is_lock_timeout()) => {
                tracing::warn!(%error, outcomes = set.len(), "outcomes are stored in halves");
                let second = set.split_off(set.len() / 2);
                rest.push(second);
                rest.push(set);
            }
            Err(error) if !error.is_transient() && set.iter().all(|a| a.ending.is_ok()) => {
                tracing::error!(%error, step.id = ?set.first().map(|a| a.step_id), "result cannot be stored; the step fails");
                for attempt in &mut set {
                    attempt.ending = Err(super::judge::not_storable(&error));
                }
                rest.push(set);
            }
            Err(error) => {
                tracing::error!(%error, outcomes = set.len(), "outcomes could not be stored");
                let message = "the database did not confirm the outcomes; report again";
                stored.refused = Some(Refusal::retry(code::UNAVAILABLE, message));
            }
        }
    }
    stored
}

impl Stored {
    fn add(&mut self, set: &[FinishedAttempt], applied: Applied) {
        let keys = set.iter().map(|a| (a.step_id, a.attempt));
        self.verdicts.extend(keys.zip(applied.verdicts.iter().copied()));
        for verdict in &applied.verdicts {
            let name = match verdict {
                Verdict::Applied => "applied",
                Verdict::Duplicate => "duplicate",
                Verdict::Stale { .. } => "stale",
                Verdict::Unknown => "unknown",
            };
            metrics::counter!("tasker_outcomes_total", "verdict" => name).increment(1);
        }
        self.applied.absorb(applied);
    }
}
