//! Why a task is where it is: the unmet condition of every step that has not ended well.
//!
//! Rests on the same fates as convergence, so that what is told here is what the converging
//! transaction waits for.

mod queued;

use std::collections::HashMap;

use tasker_messages::{
    BatchState, BatchView, Queue, Reason, ReasonCode, StepFailure, StepKind, StepState,
};

pub use self::queued::Offer;
use crate::convergence::TaskFacts;
use crate::convergence::fate::{Fate, Fates, is_worker};
use crate::template::Template;

/// What is known about a task.
#[derive(Debug, Clone, Default)]
pub struct TaskDetail {
    /// What convergence knows.
    pub facts: TaskFacts,
    /// The rows that are not members of batches, by name.
    pub steps: HashMap<String, StepDetail>,
    /// Batches, also those being expanded, by worker template.
    pub batches: HashMap<String, BatchView>,
    /// What live workers of the namespace offer.
    pub offers: Vec<Offer>,
    /// How many steps of these queues of the namespace workers may hold at a time.
    pub limits: HashMap<Queue, u32>,
    /// How many steps of the namespace, of all its queues together.
    pub limit: Option<u32>,
    /// How the task was ended before its steps had ended.
    pub stopped: Option<TaskStop>,
}

/// How a task was ended before its steps had ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStop {
    /// Somebody cancelled it.
    Cancelled,
    /// It passed a limit of time.
    Stale,
}

impl TaskStop {
    const fn words(self) -> &'static str {
        match self {
            TaskStop::Cancelled => "its task was cancelled",
            TaskStop::Stale => "its task was ended by a limit of time",
        }
    }
}

/// What is known about one row.
#[derive(Debug, Clone)]
pub struct StepDetail {
    /// Its state.
    pub state: StepState,
    /// Its current attempt.
    pub attempt: u32,
    /// Whether the current dispatch is known to be on the bus.
    pub published: bool,
    /// When it is tried again, RFC 3339.
    pub run_after: Option<String>,
    /// Who has said that it runs it.
    pub lease: Option<Lease>,
    /// The error that ended it, or that of its last attempt.
    pub error: Option<StepFailure>,
}

/// Who runs a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The worker's name; its id if it is no longer known.
    pub worker: String,
    /// Its last heartbeat, RFC 3339.
    pub last_beat: Option<String>,
    /// When the lease ends unless it is renewed, RFC 3339.
    pub until: String,
    /// Whether it has ended.
    pub expired: bool,
}

/// Reasons for everything that has not ended well and may still exist, in the order of the template.
pub fn why(template: &Template, detail: &TaskDetail) -> Vec<Reason> {
    let fates = Fates::of(template, &detail.facts, |_| true);
    let mut known = Known { template, detail, fates, held_up: vec![false; template.steps.len()] };
    // Parents first: who is held up holds up its children.
    for &position in &template.graph.order {
        known.held_up[position] = known.is_held_up(position);
    }
    (0..template.steps.len()).filter_map(|position| known.reason(position)).collect()
}

/// A cause, what it says, and what is waited for.
type Because = (ReasonCode, String, Vec<String>);

struct Known<'a> {
    template: &'a Template,
    detail: &'a TaskDetail,
    fates: Fates,
    /// By position: nothing happens to it unless something is repaired.
    held_up: Vec<bool>,
}

impl Known<'_> {
    fn name(&self, position: usize) -> &str {
        self.template.steps[position].name.as_str()
    }

    fn row(&self, position: usize) -> Option<&StepDetail> {
        self.detail.steps.get(self.name(position))
    }

    fn batch(&self, position: usize) -> Option<&BatchView> {
        self.detail.batches.get(self.name(position))
    }

    fn parents(&self, position: usize) -> impl Iterator<Item = usize> + '_ {
        self.template.graph.parents[position].iter().copied()
    }

    /// Whether it has not ended and cannot go on by itself.
    fn is_held_up(&self, position: usize) -> bool {
        match self.fates[position] {
            Fate::Lost | Fate::Blocked => true,
            Fate::Live if !is_worker(self.template, position) => {
                let pending = self.row(position).is_some_and(|row| row.state == StepState::Pending);
                pending && self.parents(position).any(|parent| self.holds_up(parent))
            }
            Fate::Open => match self.template.steps[position].kind {
                StepKind::DeferredConvergence => self.join_is_held_up(position),
                _ => self.parents(position).any(|parent| self.holds_up(parent)),
            },
            _ => false,
        }
    }

    /// A convergence takes a failure for an end and waits on for the others; but not where one of them
    /// cannot end, where a batch was stopped, or where nothing of its batches is left to join.
    fn join_is_held_up(&self, position: usize) -> bool {
        let there: Vec<usize> =
            self.parents(position).filter(|&p| self.fates[p] != Fate::Never).collect();
        let cannot_end = |&p: &usize| self.held_up[p] && self.fates[p] != Fate::Lost;
        let failed = |p: usize| matches!(self.fates[p], Fate::Failed | Fate::Lost);
        let mut batches = there.iter().copied().filter(|&p| is_worker(self.template, p)).peekable();
        let nothing_to_join = batches.peek().is_some() && batches.all(failed);
        there.iter().any(cannot_end) || nothing_to_join || there.iter().any(|&p| self.is_stopped(p))
    }

    /// Whether it is a batch that was stopped, or is being stopped.
    fn is_stopped(&self, position: usize) -> bool {
        let stopping = |batch: &BatchView| batch.state == BatchState::Failed && batch.remaining > 0;
        self.fates[position] == Fate::Stopped
            || is_worker(self.template, position) && self.batch(position).is_some_and(stopping)
    }

    /// Whether a step that needs this one's success waits in vain.
    fn holds_up(&self, position: usize) -> bool {
        self.held_up[position] || matches!(self.fates[position], Fate::Failed | Fate::Stopped)
    }

    fn reason(&self, position: usize) -> Option<Reason> {
        let (code, message, waits_for) = self.because(position)?;
        let state = match (self.row(position), self.batch(position)) {
            (Some(row), _) => row.state.as_str(),
            (None, Some(batch)) => batch.state.as_str(),
            (None, None) => "absent",
        };
        Some(Reason {
            step: self.name(position).to_owned(),
            state: state.to_owned(),
            code,
            message,
            waits_for,
        })
    }

    fn because(&self, position: usize) -> Option<Because> {
        let ended = matches!(self.fates[position], Fate::Failed | Fate::Stopped);
        match self.fates[position] {
            Fate::Done | Fate::Never => None,
            _ if !ended && self.detail.stopped.is_some() => self.detail.stopped.map(cancelled),
            Fate::Created => Some(settling("its row is about to be written")),
            Fate::Lost => {
                Some(self.behind(position, "would exist if a decision or analyzer had not failed"))
            }
            Fate::Blocked => Some(self.blocked(position)),
            Fate::Failed | Fate::Stopped if is_worker(self.template, position) => {
                let stopped = self.fates[position] == Fate::Stopped;
                self.batch(position).map(|batch| ended_batch(batch, stopped))
            }
            Fate::Failed | Fate::Stopped => self.row(position).map(|row| self.ended_step(row)),
            Fate::Live if is_worker(self.template, position) => {
                self.batch(position).map(|batch| self.members(position, batch))
            }
            Fate::Live => self.row(position).map(|row| self.live(position, row)),
            Fate::Open => Some(self.not_there(position)),
        }
    }

    /// A convergence that will not run.
    fn blocked(&self, position: usize) -> Because {
        let bad: Vec<usize> =
            self.parents(position).filter(|&p| self.fates[p] != Fate::Never).collect();
        let stopped = self.names(bad.iter().copied().filter(|&p| self.is_stopped(p)));
        if stopped.is_empty() {
            let failed =
                bad.into_iter().filter(|&p| self.holds_up(p) || self.fates[p] == Fate::Lost);
            let (shown, names) = self.list(failed);
            let message = format!("cannot run unless one of these is repaired: {shown}");
            return (ReasonCode::BlockedByFailures, message, names);
        }
        let message = format!(
            "the batch of {} was stopped by its failures; retry the batch as a whole",
            quoted(&stopped)
        );
        (ReasonCode::BatchStopped, message, stopped)
    }

    /// A step without a row that may still come.
    fn not_there(&self, position: usize) -> Because {
        if self.held_up[position] {
            return match self.template.steps[position].kind {
                StepKind::DeferredConvergence => self.blocked(position),
                _ => self.behind(position, "does not exist yet"),
            };
        }
        let open = |&p: &usize| matches!(self.fates[p], Fate::Open | Fate::Live | Fate::Created);
        let (shown, names) = self.list(self.parents(position).filter(open));
        if names.is_empty() {
            // Its parents have ended: the batch is written, or the decision acted on, next.
            return settling("what creates it has ended");
        }
        let what = match self.template.steps[position].kind {
            StepKind::DeferredConvergence => "runs once these have ended",
            StepKind::BatchWorker => "its members are made when the analyzer has ended",
            _ => "exists once these exist and every decision among them names it",
        };
        (ReasonCode::NotYetCreated, format!("{what}: {shown}"), names)
    }

    fn behind(&self, position: usize, what: &str) -> Because {
        let (shown, names) = self.list(self.parents(position).filter(|&p| self.holds_up(p)));
        (ReasonCode::BlockedByFailures, format!("{what}; held up by {shown}"), names)
    }

    fn live(&self, position: usize, row: &StepDetail) -> Because {
        let nobody = Vec::new();
        match row.state {
            StepState::Pending if self.held_up[position] => self.behind(position, "cannot run"),
            StepState::Pending => {
                let unmet = self.parents(position).filter(|&p| self.fates[p] != Fate::Done);
                let (shown, names) = self.list(unmet);
                if names.is_empty() {
                    return settling("its parents have succeeded");
                }
                (ReasonCode::WaitsForParents, format!("waits for {shown}"), names)
            }
            StepState::Enqueued => {
                let step = &self.template.steps[position];
                let on_bus = match (&row.lease, row.published) {
                    (Some(lease), false) if !lease.expired => {
                        let message = format!("handed to worker {}", lease.worker);
                        return (ReasonCode::Running, message, nobody);
                    }
                    (_, true) => "on the bus; no worker has said that it runs it",
                    (_, false) => "ready, and not known to be on the bus yet",
                };
                let (code, message) = queued::why(step, self.detail, on_bus);
                (code, message, nobody)
            }
            StepState::InProgress => self.unless_nobody_can(position, running(row)),
            StepState::WaitingForRetry => {
                let at = row.run_after.as_deref().unwrap_or("soon");
                let message = format!(
                    "attempt {} follows at {at}; the last one failed: {}",
                    row.attempt,
                    error(row)
                );
                self.unless_nobody_can(position, (ReasonCode::WaitsForRetry, message, nobody))
            }
            StepState::Expanding => (ReasonCode::Expanding, self.expanding(position), nobody),
            // An end that the next transaction takes note of.
            _ => settling("it has ended"),
        }
    }

    /// What waits for a worker has that for its reason where there is none, whatever else is so. What is
    /// running has one.
    fn unless_nobody_can(&self, position: usize, because: Because) -> Because {
        if because.0 == ReasonCode::Running {
            return because;
        }
        match queued::why(&self.template.steps[position], self.detail, &because.1) {
            (code @ (ReasonCode::NoWorker | ReasonCode::NoHandler), message) => {
                (code, message, Vec::new())
            }
            _ => because,
        }
    }

    fn expanding(&self, position: usize) -> String {
        let worker = self.template.worker_of(self.name(position));
        match worker.and_then(|worker| self.detail.batches.get(worker.name.as_str())) {
            Some(batch) => format!("the {} members of its batch are being written", batch.expected),
            None => "its batch is about to be written".to_owned(),
        }
    }

    fn ended_step(&self, row: &StepDetail) -> Because {
        if row.state == StepState::Cancelled {
            return cancelled(self.detail.stopped.unwrap_or(TaskStop::Cancelled));
        }
        let message = format!("attempt {} was the last: {}", row.attempt, error(row));
        (ReasonCode::Failed, message, Vec::new())
    }

    /// A batch whose members have not all ended.
    fn members(&self, position: usize, batch: &BatchView) -> Because {
        let BatchView { expected, published, succeeded, failed, remaining, .. } = *batch;
        if batch.state == BatchState::Failed {
            let message = format!(
                "stopped: {failed} of {expected} members failed, more than it tolerates; {remaining} \
                 are being cancelled"
            );
            return (ReasonCode::BatchStopped, message, Vec::new());
        }
        let waiting = expected.saturating_sub(published);
        let out = remaining.saturating_sub(waiting);
        let numbers = format!(
            "{remaining} of {expected} members remain: {out} on the bus, running or waiting for a \
             retry, {waiting} not published yet; {succeeded} succeeded, {failed} failed"
        );
        let step = &self.template.steps[position];
        let limit = self.template.batchable_of(step.name.as_str()).and_then(|s| s.batch.as_ref());
        let limit = limit.and_then(|batch| batch.parallelism).filter(|_| waiting > 0);
        let numbers = match limit {
            Some(limit) => format!("{numbers}; `parallelism` lets {limit} out at a time"),
            None => numbers,
        };
        match queued::why(step, self.detail, &numbers) {
            (ReasonCode::Queued | ReasonCode::AllSlotsBusy, message) => {
                (ReasonCode::MembersRemain, message, Vec::new())
            }
            (code, message) => (code, message, Vec::new()),
        }
    }

    fn names(&self, positions: impl Iterator<Item = usize>) -> Vec<String> {
        positions.map(|position| self.name(position).to_owned()).collect()
    }

    /// Steps with their states, for people, and their names.
    fn list(&self, positions: impl Iterator<Item = usize>) -> (String, Vec<String>) {
        let positions: Vec<usize> = positions.collect();
        let shown: Vec<String> = positions
            .iter()
            .map(|&position| match (self.row(position), self.batch(position)) {
                (Some(row), _) => format!("`{}` ({})", self.name(position), row.state),
                (None, Some(batch)) => {
                    let BatchView { state, remaining, expected, .. } = batch;
                    let name = self.name(position);
                    format!("`{name}` ({state}, {remaining} of {expected} members remain)")
                }
                (None, None) => format!("`{}` (absent)", self.name(position)),
            })
            .collect();
        (shown.join(", "), self.names(positions.into_iter()))
    }
}

fn settling(what: &str) -> Because {
    (ReasonCode::Settling, format!("{what}; the next transaction goes on from there"), Vec::new())
}

fn cancelled(stop: TaskStop) -> Because {
    (ReasonCode::Cancelled, stop.words().to_owned(), Vec::new())
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn running(row: &StepDetail) -> Because {
    let Some(Lease { worker, last_beat, until, expired }) = &row.lease else {
        let message = format!("attempt {} was started", row.attempt);
        return (ReasonCode::Running, message, Vec::new());
    };
    let beat = last_beat.as_deref().unwrap_or("unknown");
    let what = format!("attempt {} by worker {worker}, last heard of at {beat}", row.attempt);
    if *expired {
        let message = format!("{what}; its lease ended at {until}, another worker takes over");
        return (ReasonCode::LeaseExpired, message, Vec::new());
    }
    (ReasonCode::Running, format!("{what}; leased until {until}"), Vec::new())
}

fn ended_batch(batch: &BatchView, stopped: bool) -> Because {
    let BatchView { expected, succeeded, failed, .. } = *batch;
    let numbers = format!("{failed} of {expected} members failed, {succeeded} succeeded");
    if stopped {
        let message =
            format!("{numbers}: more than the batch tolerates, the others were cancelled");
        return (ReasonCode::BatchStopped, message, Vec::new());
    }
    (ReasonCode::Failed, numbers, Vec::new())
}

fn error(row: &StepDetail) -> String {
    let error = row.error.as_ref();
    error.map_or_else(|| "without an error".to_owned(), |e| format!("{} [{}]", e.message, e.code))
}

#[cfg(test)]
mod tests;
