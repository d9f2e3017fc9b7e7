//! Postgres: the rows, and every transaction on them. Transactions of the product serialise by their
//! locks, so each is one step here; what it decides, it asks of the crate. Where a statement reads
//! before it waits for its locks, the model takes two steps ([`outcomes::Rows::edges_of`]).

mod claims;
mod converging;
mod outcomes;

use tasker_messages::{BatchState, StepKind, StepState, TaskState};
use tasker_workflow::{StepEvent, TaskEvent, step_transition, task_end, task_transition};

pub(crate) use self::claims::{Asked, GONE, Lease, Released};
pub(crate) use self::outcomes::{Applied, Report};
use crate::mutant::Mutant;
use crate::scenario::Scenario;
use crate::watch::Watch;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Done(u8),
    Error,
    Cancelled,
}

/// A row of `outcomes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    pub(crate) attempt: u8,
}

/// A row of `steps`, and below it what only the model remembers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Step {
    /// `pending`, `enqueued`, `in_progress` or `waiting_for_retry`.
    pub(crate) state: StepState,
    pub(crate) attempt: u8,
    pub(crate) dispatch_seq: u8,
    pub(crate) sent_seq: u8,
    pub(crate) tries: u8,
    pub(crate) pending_parents: u8,
    pub(crate) unsettled: bool,
    pub(crate) claim_required: bool,
    pub(crate) lease: Lease,
    /// Its rows of `step_edges`, as a set of slots.
    pub(crate) children: u32,
    pub(crate) outcome: Option<Outcome>,
    /// How often it got its row, and its outcome.
    pub(crate) created: u8,
    pub(crate) applied: u8,
    /// Deliveries whose worker vanished, and failures that were reported: so many tries may be charged.
    pub(crate) excuses: u8,
    /// Which attempts have been run.
    pub(crate) ran: u64,
}

impl Step {
    /// Members are inserted as sent: their batch says how far they are published.
    fn new(ready: bool, pending_parents: u8, unsettled: bool, is_member: bool) -> Self {
        Self {
            state: if ready { StepState::Enqueued } else { StepState::Pending },
            attempt: 1,
            dispatch_seq: 1,
            sent_seq: u8::from(is_member),
            tries: 0,
            pending_parents,
            unsettled,
            claim_required: false,
            lease: Lease::None,
            children: 0,
            outcome: None,
            created: 1,
            applied: 0,
            excuses: 0,
            ran: 0,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, StepState::Enqueued | StepState::InProgress)
    }

    /// Moves it where the crate's table says that this event leads.
    fn follow(&mut self, event: StepEvent, watch: &mut Watch) {
        match step_transition(self.state, event) {
            Ok(next) => self.state = next,
            Err(refused) => watch.broken(refused.to_string()),
        }
    }
}

/// A row of `batches`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    pub(crate) state: BatchState,
    pub(crate) sealed: bool,
    pub(crate) settled: bool,
    pub(crate) expanded_upto: u8,
    pub(crate) published_upto: u8,
    /// How many members one of its messages brings at most.
    pub(crate) bundled: u8,
    pub(crate) publisher: Option<u8>,
    pub(crate) remaining: i8,
    pub(crate) succeeded: i8,
    pub(crate) failed: i8,
}

/// A row of `tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Task {
    pub(crate) state: TaskState,
    pub(crate) active: i8,
    pub(crate) pending: i8,
    pub(crate) failed: i8,
    /// How often it has ended.
    pub(crate) ends: u8,
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Rows {
    pub(crate) steps: Vec<Option<Step>>,
    pub(crate) batches: Vec<Option<Batch>>,
    pub(crate) task: Task,
    /// Whether a stream is known that not everything was sent to again (`bus_epochs`).
    pub(crate) epoch_open: bool,
}

/// What a transaction changes in the counters of the task.
#[derive(Debug, Clone, Copy, Default)]
struct Deltas {
    active: i8,
    pending: i8,
    failed: i8,
}

impl Rows {
    /// `submit/insert_tasks.sql`: what [`tasker_workflow::Template::submission`] plans.
    pub(crate) fn submitted(scenario: &Scenario) -> Self {
        let plan = scenario.template.submission();
        let mut rows = Self {
            steps: vec![None; scenario.rows()],
            batches: vec![None; scenario.batches.len()],
            task: Task {
                state: TaskState::Pending,
                active: plan.active as i8,
                pending: plan.pending as i8,
                failed: 0,
                ends: 0,
            },
            epoch_open: false,
        };
        for planned in &plan.steps {
            let step =
                Step::new(planned.ready, planned.pending_parents as u8, planned.unsettled, false);
            rows.steps[planned.step] = Some(step);
        }
        for planned in &plan.steps {
            rows.insert_edges(scenario, planned.step, planned.parents.iter().map(|p| p.as_str()));
        }
        rows
    }

    pub(crate) fn step(&self, slot: usize) -> Option<&Step> {
        self.steps[slot].as_ref()
    }

    /// A row that is known to be there.
    pub(crate) fn at(&mut self, slot: usize) -> &mut Step {
        self.steps[slot].as_mut().expect("a row")
    }

    pub(crate) fn existing(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.steps.iter().enumerate().filter_map(|(slot, step)| Some((slot, step.as_ref()?)))
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.task.state.is_terminal()
    }

    /// Whether it can run: what the queries say as the open state of a task and `(b.id is null or
    /// b.state = 'sealed')`.
    pub(crate) fn is_open(&self, scenario: &Scenario, slot: usize) -> bool {
        let batch = scenario.batch_of(slot).map(|batch| self.batches[batch].as_ref());
        let sealed = batch.is_none_or(|b| b.is_some_and(|b| b.state == BatchState::Sealed));
        !self.is_finished() && (sealed || scenario.is(Mutant::NoSealTest))
    }

    fn insert_edges<'a>(
        &mut self,
        scenario: &Scenario,
        child: usize,
        parents: impl Iterator<Item = &'a str>,
    ) {
        for parent in parents {
            let (parent, _) = scenario.template.step(parent).expect("a step");
            self.at(parent).children |= 1 << child;
        }
    }

    /// `outcomes/release_children.sql`, and the same as a part of `outcomes/apply.sql`. Returns the
    /// children that are ready now.
    fn release_children(
        &mut self,
        children: u32,
        deltas: &mut Deltas,
        watch: &mut Watch,
    ) -> Vec<usize> {
        let mut ready = Vec::new();
        for child in (0..self.steps.len()).filter(|child| children & (1 << child) != 0) {
            let step = self.at(child);
            if step.state != StepState::Pending {
                continue;
            }
            let Some(left) = step.pending_parents.checked_sub(1) else {
                watch.broken("a child was released more often than it has parents");
                continue;
            };
            step.pending_parents = left;
            if left == 0 {
                step.follow(StepEvent::ParentsDone, watch);
                deltas.active += 1;
                deltas.pending -= 1;
                ready.push(child);
            }
        }
        ready
    }

    /// `outcomes/count_tasks.sql` and `outcomes/finish_tasks.sql`, and the same as a part of
    /// `outcomes/apply.sql`: guarded on the task not having ended.
    fn count_task(&mut self, deltas: Deltas, watch: &mut Watch) {
        let task = &mut self.task;
        if task.state.is_terminal() {
            return;
        }
        task.active += deltas.active;
        task.pending += deltas.pending;
        task.failed += deltas.failed;
        let count = |n: i8| u32::try_from(n).ok();
        let (Some(active), Some(pending), Some(failed)) =
            (count(task.active), count(task.pending), count(task.failed))
        else {
            return watch.broken("a counter of the task fell below zero");
        };
        let event = match task_end(active, pending, failed) {
            Some(_) => TaskEvent::StepsEnded { pending, failed },
            None => TaskEvent::Started,
        };
        match task_transition(task.state, event) {
            Ok(next) => task.state = next,
            Err(refused) => watch.broken(refused.to_string()),
        }
        if task.state.is_terminal() {
            task.ends += 1;
            watch.reach(match task.state {
                TaskState::Complete => "task complete",
                TaskState::Error => "task error",
                _ => "task blocked by failures",
            });
        }
    }

    /// `batches/cancel_task.sql` under the locks of `cancel.rs`.
    pub(crate) fn cancel(&mut self, scenario: &Scenario, watch: &mut Watch) {
        match task_transition(self.task.state, TaskEvent::Cancelled) {
            Ok(next) => self.task.state = next,
            Err(refused) => return watch.broken(refused.to_string()),
        }
        self.task.ends += 1;
        for slot in 0..scenario.template.steps.len() {
            if let Some(step) = &mut self.steps[slot] {
                step.end(End::Cancelled);
                step.state = StepState::Pending;
                step.unsettled = false;
            }
        }
        for batch in self.batches.iter_mut().flatten().filter(|b| !b.settled) {
            batch.state = BatchState::Cancelled;
        }
        watch.reach("task cancelled");
    }

    /// Whether `cancel_members` has something to do.
    pub(crate) fn has_members_to_cancel(&self) -> Option<usize> {
        let open = |batch: &Batch| {
            let stopped = batch.state == BatchState::Failed && batch.remaining > 0;
            !batch.settled && (batch.state == BatchState::Cancelled || stopped)
        };
        self.batches.iter().position(|batch| batch.as_ref().is_some_and(open))
    }

    /// `batches/cancel_members.sql` and `batches/delete_members.sql`, with what `cancel.rs` counts.
    pub(crate) fn cancel_members(&mut self, scenario: &Scenario, batch: usize, watch: &mut Watch) {
        let shape = &scenario.batches[batch];
        let sealed = self.batches[batch].as_ref().is_some_and(|b| b.sealed);
        let mut changed = 0;
        for slot in shape.first..shape.first + usize::from(shape.members) {
            let Some(step) = self.steps[slot].as_mut() else { continue };
            if !sealed {
                self.steps[slot] = None;
            } else if step.outcome.is_none() {
                if step.state == StepState::WaitingForRetry || step.sent_seq < step.dispatch_seq {
                    step.state = StepState::Pending;
                }
                step.end(End::Cancelled);
                changed += 1;
            }
        }
        if let Some(row) = self.batches[batch].as_mut() {
            row.remaining -= changed;
            row.settled = row.state == BatchState::Cancelled && (!sealed || row.remaining == 0);
        }
        watch.reach(if sealed { "members cancelled" } else { "expansion cancelled" });
    }

    /// Whether a step that was decided on is still without its batch.
    pub(crate) fn is_expanding(&self, scenario: &Scenario, slot: usize) -> bool {
        self.step(slot).is_some_and(|step| {
            step.unsettled
                && scenario.kind(slot) == StepKind::Batchable
                && matches!(step.outcome, Some(Outcome { end: End::Done(_), .. }))
        })
    }
}

impl Step {
    /// Inserts its outcome where it has none.
    fn end(&mut self, end: End) {
        if self.outcome.is_none() {
            self.outcome = Some(Outcome { end, attempt: self.attempt });
            self.applied += 1;
            self.forget();
        }
    }

    /// A reason for a try to be charged. More of them than a path has faults make no difference.
    pub(crate) fn excuse(&mut self) {
        if self.outcome.is_none() && self.excuses < self.tries + 3 {
            self.excuses += 1;
        }
    }

    /// What means nothing any more when a step has ended; the model has fewer states without.
    fn forget(&mut self) {
        self.lease = Lease::None;
        (self.tries, self.excuses) = (0, 0);
    }
}
