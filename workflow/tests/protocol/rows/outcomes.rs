//! Outcomes of finished attempts: `store/src/outcomes.rs`, `apply.rs` and `retries.rs` with their
//! queries.

use tasker_messages::{BatchState, StepKind, StepState, Verdict};
use tasker_workflow::{NextAttempt, StepEvent, next_attempt};

use super::claims::Lease;
use super::{Deltas, End, Outcome, Rows};
use crate::mutant::Mutant;
use crate::scenario::{Ending, Scenario, failure};
use crate::watch::Watch;

/// What a worker says of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Report {
    pub(crate) slot: usize,
    pub(crate) attempt: u8,
    pub(crate) seq: u8,
    pub(crate) worker: u8,
    pub(crate) ending: Ending,
}

/// What a transaction of outcomes has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) verdict: Verdict,
    /// Children that are to be published.
    pub(crate) ready: Vec<usize>,
    /// A child that is leased to the worker of the report.
    pub(crate) handed: Option<usize>,
}

impl Applied {
    fn only(verdict: Verdict) -> Self {
        Self { verdict, ready: Vec::new(), handed: None }
    }
}

impl Rows {
    /// The edges as `outcomes/{apply,apply_one}.sql` see them when they begin, before they have locks.
    pub(crate) fn edges_of(&self, slot: usize) -> u32 {
        self.step(slot).map_or(0, |step| step.children)
    }

    /// `Store::apply_outcomes` for one attempt. `edges` are those that the statement saw at its
    /// beginning.
    pub(crate) fn store_outcome(
        &mut self,
        scenario: &Scenario,
        report: Report,
        edges: u32,
        watch: &mut Watch,
    ) -> Applied {
        if self.step(report.slot).is_none() {
            watch.reach("report: unknown");
            return Applied::only(Verdict::Unknown);
        }
        if let Some(charged) = self.plan_retry(scenario, report) {
            self.schedule_retry(report, charged, watch);
            return Applied::only(Verdict::Applied);
        }
        let mut edges = edges;
        // A failure takes its locks by a statement before, so that the next one sees everything.
        if !matches!(report.ending, Ending::Done(_)) {
            edges = self.edges_of(report.slot);
        }
        if edges != self.edges_of(report.slot) && !scenario.is(Mutant::EdgesNotCompared) {
            watch.reach("report: edges came meanwhile");
            edges = self.edges_of(report.slot);
        }
        self.land(scenario, report, edges, watch)
    }

    /// `outcomes/failed_steps.sql` and the rule for retries; whether the retry costs a try.
    fn plan_retry(&self, scenario: &Scenario, report: Report) -> Option<bool> {
        let failure = failure(report.ending)?;
        let step = self.step(report.slot)?;
        let may_run = step.is_live()
            && self.is_open(scenario, report.slot)
            && (step.outcome.is_none() || scenario.is(Mutant::RaisedAfterOutcome));
        if !may_run || step.attempt != report.attempt {
            return None;
        }
        let policy = &scenario.template.steps[scenario.position(report.slot)].retry;
        let next = next_attempt(policy, &failure, report.attempt.into(), step.tries.into(), 0);
        match next {
            NextAttempt::Retry { charged, .. } => Some(charged),
            NextAttempt::Exhausted => None,
        }
    }

    /// `outcomes/schedule_retries.sql`.
    fn schedule_retry(&mut self, report: Report, charged: bool, watch: &mut Watch) {
        let step = self.at(report.slot);
        step.follow(StepEvent::RetryScheduled, watch);
        step.attempt += 1;
        step.dispatch_seq += 1;
        step.tries += u8::from(charged);
        if charged {
            step.excuse();
        }
        step.claim_required = false;
        step.lease = Lease::None;
        watch.reach(if charged { "retry scheduled" } else { "retry scheduled, not charged" });
    }

    /// `outcomes/apply.sql`.
    fn land(
        &mut self,
        scenario: &Scenario,
        report: Report,
        edges: u32,
        watch: &mut Watch,
    ) -> Applied {
        let slot = report.slot;
        let step = self.at(slot);
        let current = step.attempt == report.attempt || scenario.is(Mutant::NoAttemptFence);
        let free = step.outcome.is_none() || scenario.is(Mutant::NoTerminalTest);
        let end = match report.ending {
            Ending::Done(choice) => End::Done(choice),
            _ => End::Error,
        };
        let inserts = current && step.is_live() && free;
        let verdict = if inserts { Verdict::Applied } else { self.verdict(report, watch) };
        if inserts {
            self.insert(scenario, report, end, watch);
        } else if !scenario.is(Mutant::CountsWithoutChange) {
            return Applied::only(verdict);
        }
        self.count(scenario, report, end, edges, verdict, watch)
    }

    fn insert(&mut self, scenario: &Scenario, report: Report, end: End, watch: &mut Watch) {
        let expands = scenario.kind(report.slot) == StepKind::Batchable;
        let event = match end {
            End::Done(_) if expands => StepEvent::BatchDecided,
            End::Done(_) => StepEvent::Succeeded,
            _ => StepEvent::Failed,
        };
        let step = self.at(report.slot);
        // The row keeps its state; what users see is the outcome's.
        let state = step.state;
        step.follow(event, watch);
        step.state = state;
        step.outcome = Some(Outcome { end, attempt: report.attempt });
        step.applied += 1;
        step.forget();
        watch.reach("report: applied");
    }

    /// The rest of `outcomes/apply.sql`: children, batches, tasks, by the rows that were inserted.
    fn count(
        &mut self,
        scenario: &Scenario,
        report: Report,
        end: End,
        edges: u32,
        verdict: Verdict,
        watch: &mut Watch,
    ) -> Applied {
        let slot = report.slot;
        let failed = i8::from(end == End::Error);
        let mut deltas = Deltas::default();
        let mut ready = Vec::new();
        if let Some(batch) = scenario.batch_of(slot) {
            let shape = &scenario.batches[batch];
            let row = self.batches[batch].as_mut().expect("a batch");
            row.remaining -= 1;
            row.failed += failed;
            row.succeeded += 1 - failed;
            if row.state == BatchState::Sealed && row.failed > shape.max_failed as i8 {
                row.state = BatchState::Failed;
                watch.reach("batch stopped");
            }
        } else {
            let decides = matches!(scenario.kind(slot), StepKind::Batchable | StepKind::Decision);
            if failed == 0 && !decides {
                ready = self.release_children(edges, &mut deltas, watch);
            }
            deltas.active -= i8::from(!self.at(slot).unsettled);
            deltas.failed += failed;
        }
        self.count_task(deltas, watch);
        let mut applied = Applied { verdict, ready, handed: None };
        self.hand_over(scenario, report, &mut applied, watch);
        applied
    }

    /// A worker names itself as the taker of the first child of a step that it has ended.
    fn hand_over(
        &mut self,
        scenario: &Scenario,
        report: Report,
        applied: &mut Applied,
        watch: &mut Watch,
    ) {
        if scenario.hand_over && !applied.ready.is_empty() {
            let child = applied.ready.remove(0);
            self.at(child).lease = Lease::Of(report.worker);
            applied.handed = Some(child);
            watch.reach("step handed over");
        }
    }

    /// `verdict` and `not_running` in `store/src/apply.rs`.
    fn verdict(&self, report: Report, watch: &mut Watch) -> Verdict {
        let step = self.step(report.slot).expect("a row");
        let stale = || Verdict::Stale { superseded: step.dispatch_seq > report.seq };
        let verdict = match step {
            _ if step.outcome.is_some() => Verdict::Duplicate,
            _ if !step.is_live() && step.attempt > report.attempt => stale(),
            _ if !step.is_live() => Verdict::Unknown,
            _ if step.attempt == report.attempt => Verdict::Duplicate,
            _ => stale(),
        };
        watch.reach(match verdict {
            Verdict::Duplicate => "report: duplicate",
            Verdict::Stale { superseded: true } => "report: stale, sent again",
            Verdict::Stale { superseded: false } => "report: stale, not sent again",
            _ => "report: unknown",
        });
        verdict
    }

    /// `dispatch/wake_retries.sql`.
    pub(crate) fn wake(&mut self, slot: usize, watch: &mut Watch) {
        let step = self.at(slot);
        step.follow(StepEvent::RetryDue, watch);
        debug_assert_eq!(step.state, StepState::Enqueued);
    }
}
