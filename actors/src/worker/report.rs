//! One report: sent until it is answered, then acknowledged.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tasker_bus::{BusError, RequestError};
use tasker_guards::{CrashPoint, Guard, guard_is_off, pass};
use tasker_messages::subject::{self, Request};
use tasker_messages::{
    AttemptFinished, AttemptOutcome, Namespace, NextStep, NodeId, OutcomeVerdicts, Refusal,
    ReleasedStep, StepFailure, Verdict, WorkItem, WorkerId, code,
};
use tasker_workflow::{AfterReport, after_report};
use tokio::sync::OwnedSemaphorePermit;

use super::core::{Core, Stage};
use super::drain::HURRY;
use super::execute::{Step, run_step};
use super::held::{Admitted, HeldStep, HeldSteps, Hold};
use super::outbox::Finished;
use super::place::Place;
use super::reserved::Reserved;
use super::retry::BackOff;

/// Outcomes of one namespace for one orchestrator.
pub(crate) struct Report {
    namespace: Namespace,
    node: NodeId,
    outcomes: Vec<AttemptFinished>,
    holds: Vec<Hold>,
    places: Vec<Arc<Place>>,
    bytes: usize,
    /// Room in memory, given back at the end.
    room: Option<OwnedSemaphorePermit>,
}

/// The form of [`tasker_messages::OutcomeReport`] that borrows.
#[derive(Serialize)]
struct Message<'a> {
    worker: WorkerId,
    outcomes: &'a [AttemptFinished],
    takes: u32,
    tells_schemas: bool,
    tells_events: bool,
}

impl Report {
    /// Sorts outcomes into reports of at most so many bytes, except single outcomes above.
    pub(crate) fn sort(
        finished: impl IntoIterator<Item = Finished>,
        max_bytes: usize,
    ) -> Vec<Self> {
        let mut reports: Vec<Report> = Vec::new();
        for finished in finished {
            let fits = |report: &&mut Report| {
                report.node == finished.node
                    && report.namespace == finished.place.namespace
                    && report.bytes + finished.bytes <= max_bytes
            };
            // Nearly always there is one; the last ones have room.
            match reports.iter_mut().rev().find(fits) {
                Some(report) => report.add(finished),
                None => {
                    let mut report = Report {
                        namespace: finished.place.namespace.clone(),
                        node: finished.node,
                        outcomes: Vec::new(),
                        holds: Vec::new(),
                        places: Vec::new(),
                        bytes: 0,
                        room: None,
                    };
                    report.add(finished);
                    reports.push(report);
                }
            }
        }
        reports
    }

    fn add(&mut self, finished: Finished) {
        self.outcomes.push(finished.attempt);
        self.holds.push(finished.hold);
        self.places.push(finished.place);
        self.bytes += finished.bytes;
        match &mut self.room {
            Some(room) => room.merge(finished.room),
            None => self.room = Some(finished.room),
        }
    }

    /// How many steps its answer may bring.
    fn may_bring(&self) -> u32 {
        self.outcomes.iter().filter(|attempt| attempt.may_bring_next()).count() as u32
    }

    fn halve(mut self) -> (Self, Self) {
        let half = self.outcomes.len() / 2;
        let second = Report {
            namespace: self.namespace.clone(),
            node: self.node,
            outcomes: self.outcomes.split_off(half),
            holds: self.holds.split_off(half),
            places: self.places.split_off(half),
            bytes: 0,
            // The room stays with the first half, which is reported last.
            room: None,
        };
        (self, second)
    }
}

/// Sends a report until every outcome in it has a verdict. A report that is refused for good is
/// halved until the culprit stands alone.
///
/// `unanswered` is given back with the last answer, before the steps that came with it run: their
/// outcomes are not to wait as if a report were on its way.
pub(crate) async fn deliver(core: Arc<Core>, report: Report, unanswered: OwnedSemaphorePermit) {
    let mut unanswered = Some(unanswered);
    let mut rest = vec![report];
    while let Some(report) = rest.pop() {
        if guard_is_off(Guard::AckAfterCommit) {
            for ack in report.holds.iter().filter_map(|hold| core.held.ack_of(hold)) {
                ack.ack().await;
            }
        }
        pass(CrashPoint::ReportBegins);
        let mut slots = Reserved::up_to(&core, report.may_bring());
        match send(&core, &report, &mut slots).await {
            Ok(answer) => {
                pass(CrashPoint::ReportAnswered);
                if rest.is_empty() {
                    drop(unanswered.take());
                }
                // First, so that work goes on while messages are acknowledged; and while the report
                // is still held, so that a worker that drains waits for it.
                let goes_on = !answer.next.is_empty();
                go_on(&core, &report, answer.next, slots).await;
                if goes_on {
                    // To the steps that begin: a quick one reports while messages are acknowledged.
                    tokio::task::yield_now().await;
                }
                settle(&core, report, &answer.verdicts).await;
                pass(CrashPoint::ReportAcked);
            }
            Err(refusal) if report.outcomes.len() > 1 => {
                tracing::debug!(%refusal, outcomes = report.outcomes.len(), "halving a report");
                let (first, second) = report.halve();
                rest.extend([first, second]);
            }
            Err(refusal) => rest.extend(replace_culprit(report, refusal)),
        }
    }
}

/// An outcome that the orchestrator never takes becomes the step's error, so that the step ends.
fn replace_culprit(mut report: Report, refusal: Refusal) -> Option<Report> {
    metrics::counter!("tasker_worker_refused_outcomes_total").increment(1);
    let culprit = report.outcomes.first_mut()?;
    tracing::error!(
        step.id = %culprit.step_id, attempt = culprit.attempt, %refusal,
        "the orchestrator refuses an outcome"
    );
    if matches!(&culprit.outcome, AttemptOutcome::Failed(failure) if failure.code == refusal.code) {
        // Even the error is refused: forget the message, so that it comes back later.
        return None;
    }
    culprit.outcome = AttemptOutcome::Failed(StepFailure {
        message: format!("the outcome was refused: {}", refusal.message),
        code: refusal.code,
        retryable: false,
        error_type: "permanent".to_owned(),
        retry_after_ms: None,
        context: serde_json::Value::Null,
    });
    Some(report)
}

/// Asks until there is an answer: first the orchestrator that dispatched the steps, then any.
async fn send(
    core: &Core,
    report: &Report,
    slots: &mut Reserved,
) -> Result<OutcomeVerdicts, Refusal> {
    let mut payload = message(core, report, slots.len())?;
    let timeout = core.settings.worker.report_timeout();
    let mut back_off = BackOff::of_requests();
    let mut to = subject::outcome_at(&report.namespace, report.node);
    loop {
        core.meters.reports.increment(1);
        let connected_anew = core.bus.connected_anew();
        let ask = async {
            tokio::select! {
                answer = core.bus.request_raw(to.clone(), &[], payload.clone(), timeout) => answer,
                () = in_a_hurry(core) => Err(RequestError::TimedOut { subject: to.clone(), timeout: HURRY }),
                () = lost_with(connected_anew) => Err(BusError::ConnectionLost.into()),
            }
        };
        let answer = keeping(slots, ask).await;
        let error = match answer {
            Ok(verdicts) => return Ok(verdicts),
            Err(error) => error,
        };
        if let Some(refusal) = refused_for_good(&error) {
            return Err(refusal);
        }
        core.meters.reports_repeated.increment(1);
        tracing::debug!(%error, outcomes = report.outcomes.len(), "reporting again");
        // Others may use them while this goes on.
        slots.give_back();
        payload = message(core, report, 0)?;
        let gone = matches!(error, RequestError::NoResponders { .. });
        let any = Request::Outcome.subject(&report.namespace);
        if to == any || !gone {
            back_off.pause().await;
        }
        to = any;
    }
}

fn message(core: &Core, report: &Report, takes: u32) -> Result<Bytes, Refusal> {
    let message = Message {
        worker: core.id,
        outcomes: &report.outcomes,
        takes,
        tells_schemas: true,
        tells_events: true,
    };
    let payload = serde_json::to_vec(&message);
    payload.map(Bytes::from).map_err(|e| Refusal::new(code::RESULT_NOT_STORABLE, e.to_string()))
}

/// Waits for an answer, and keeps slots for what it brings for as long as that is worth it.
async fn keeping<T>(slots: &mut Reserved, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        () = slots.expire() => {}
    }
    slots.give_back();
    answer.await
}

/// For an answer that comes all the same when the connection was lost: the request, or the answer, may have
/// waited in one of the two processes. Steps that it brings along are lost with it until their leases end.
const GRACE: Duration = Duration::from_secs(1);

/// Returns a while after there is another connection.
async fn lost_with(connected_anew: impl Future<Output = ()>) {
    connected_anew.await;
    tokio::time::sleep(GRACE).await;
}

/// Returns when a worker that ends has waited long enough: whoever it asks may have ended as well.
async fn in_a_hurry(core: &Core) {
    let mut stage = core.stage.subscribe();
    // The stage lives as long as the core.
    drop(stage.wait_for(|stage| *stage >= Stage::Draining).await);
    tokio::time::sleep(HURRY).await;
}

/// A refusal that sending again will not change. Whatever is only unknown is asked again: outcomes
/// are never dropped while the process lives.
fn refused_for_good(error: &RequestError) -> Option<Refusal> {
    match error {
        // Another orchestrator may be of this worker's release.
        RequestError::Refused(refusal) if refusal.code == code::PROTOCOL_VERSION => None,
        RequestError::Refused(refusal) if !refusal.retryable => Some(refusal.clone()),
        RequestError::Bus(BusError::TooLarge { .. }) => {
            Some(Refusal::new(code::RESULT_TOO_LARGE, error.to_string()))
        }
        _ => None,
    }
}

/// Runs the steps that came with an answer. They are on no stream: one that is not run is given
/// back.
async fn go_on(core: &Arc<Core>, report: &Report, next: Vec<NextStep>, mut slots: Reserved) {
    let mut refused = Vec::new();
    for NextStep { after, item } in next {
        let Some(place) = report.places.get(after as usize) else {
            tracing::error!(step.id = %item.step_id, after, "a step follows no outcome of the report");
            continue;
        };
        if core.cancelled.has_task(&report.namespace, &item) {
            continue;
        }
        let slot = if core.stage() == Stage::Serving { slots.take_one() } else { None };
        if slot.is_none() {
            // The answer came late: what was pulled meanwhile has taken the slot, perhaps for long.
            refused.push(released(&item));
            continue;
        }
        match HeldSteps::admit(core, place, &item, None, false) {
            Admitted::New(hold) => {
                let place = Arc::clone(place);
                let (attempt, tries) = (item.attempt, item.tries);
                tokio::spawn(run_step(Step { attempt, tries, item, place, hold, slot }));
            }
            // The sweep has sent it meanwhile, and the message was faster.
            Admitted::Known(_) => core.ledger.give(1),
        }
    }
    if !refused.is_empty() {
        let dispatches = refused.iter().map(|step| (step.step_id, step.dispatch_seq, None));
        core.held.giving_back.begin(dispatches);
        core.give_back_steps(&report.namespace, refused).await;
    }
}

fn released(item: &WorkItem) -> ReleasedStep {
    let WorkItem { step_id, attempt, dispatch_seq, .. } = *item;
    ReleasedStep { step_id, attempt, dispatch_seq, unstarted: true }
}

async fn settle(core: &Core, report: Report, verdicts: &[Verdict]) {
    if verdicts.len() != report.outcomes.len() {
        tracing::error!(
            outcomes = report.outcomes.len(),
            verdicts = verdicts.len(),
            "an answer does not fit its report; what has no verdict comes back"
        );
    }
    let held = core.held.settle(report.holds);
    for ((held, &verdict), finished) in held.into_iter().zip(verdicts).zip(&report.outcomes) {
        if verdict != Verdict::Applied {
            metrics::counter!("tasker_worker_unapplied_outcomes_total").increment(1);
            tracing::debug!(step.id = %finished.step_id, attempt = finished.attempt, ?verdict);
        }
        let Some(HeldStep { ack: Some(ack), dispatch_seq, .. }) = held else { continue };
        match after_report(verdict, finished.dispatch_seq, dispatch_seq) {
            AfterReport::Acknowledge => ack.ack().await,
            AfterReport::GiveBack => ack.give_back().await,
            AfterReport::Forget => {}
        }
    }
    drop(report.room);
}
