//! Expansion and convergence: `store/src/expansion.rs` and `convergence.rs` with their queries. Both
//! lock first and read in the statements that follow.

use std::collections::HashMap;

use tasker_messages::{BatchState, StepKind};
use tasker_workflow::{
    BatchFact, Choice, ConvergencePlan, Ending, StepEvent, StepFact, TaskFacts, converge,
    step_transition,
};

use super::{Batch, Deltas, End, Outcome, Rows, Step};
use crate::mutant::Mutant;
use crate::scenario::Scenario;
use crate::watch::Watch;

impl Rows {
    /// `TaskState::facts` of `convergence.rs`.
    pub(crate) fn facts(&self, scenario: &Scenario) -> TaskFacts {
        let name = |slot: usize| scenario.template.steps[scenario.position(slot)].name.to_string();
        let mut facts = TaskFacts::default();
        for (slot, step) in self.existing().filter(|(slot, _)| scenario.batch_of(*slot).is_none()) {
            let ended = step.outcome.filter(|_| !self.is_expanding(scenario, slot));
            let ended = ended.map(|outcome| match outcome.end {
                End::Done(_) => Ending::Succeeded,
                End::Error | End::Cancelled => Ending::Failed,
            });
            facts.steps.insert(name(slot), StepFact { ended });
            if let (StepKind::Decision, Some(Outcome { end: End::Done(choice), .. })) =
                (scenario.kind(slot), step.outcome)
            {
                let steps = scenario.choices[usize::from(choice)].iter();
                let steps = steps.map(|&name| name.to_owned()).collect();
                facts.choices.insert(name(slot), Choice { steps, settled: !step.unsettled });
            }
        }
        for (shape, row) in scenario.batches.iter().zip(&self.batches) {
            let is_sealed = |row: &&Batch| {
                matches!(row.state, BatchState::Sealed | BatchState::Converged | BatchState::Failed)
            };
            if let Some(row) = row.as_ref().filter(is_sealed) {
                let fact = BatchFact {
                    remaining: row.remaining as u32,
                    succeeded: row.succeeded as u32,
                    failed: row.failed as u32,
                    stopped: row.failed > shape.max_failed as i8,
                };
                facts.batches.insert(name(shape.worker), fact);
            }
        }
        facts
    }

    fn is_done(batch: &Batch) -> bool {
        matches!(batch.state, BatchState::Sealed | BatchState::Failed)
            && batch.remaining == 0
            && !batch.settled
    }

    fn is_to_settle(&self, scenario: &Scenario, slot: usize) -> bool {
        let ended = |step: &Step| step.unsettled && step.outcome.is_some();
        self.step(slot).is_some_and(ended) && !self.is_expanding(scenario, slot)
    }

    /// `convergence/candidates.sql`.
    pub(crate) fn is_to_converge(&self, scenario: &Scenario) -> bool {
        !self.is_finished()
            && (self.batches.iter().flatten().any(Rows::is_done)
                || self.existing().any(|(slot, _)| self.is_to_settle(scenario, slot)))
    }

    /// `Store::converge_tasks`, by what it read. Returns the steps that are ready now.
    pub(crate) fn converge(
        &mut self,
        scenario: &Scenario,
        read: &Rows,
        watch: &mut Watch,
    ) -> Vec<usize> {
        if self.is_finished() {
            return Vec::new();
        }
        let plan = converge(&scenario.template, &read.facts(scenario));
        let mut deltas = Deltas { pending: -(plan.never.len() as i8), ..Deltas::default() };
        for slot in 0..self.steps.len() {
            // `settle_steps`
            if read.is_to_settle(scenario, slot) && self.at(slot).unsettled {
                self.at(slot).unsettled = false;
                deltas.active -= 1;
            }
        }
        for (n, shape) in scenario.batches.iter().enumerate() {
            let done = read.batches[n].as_ref().is_some_and(Rows::is_done);
            let Some(row) = self.batches[n].as_mut().filter(|row| done && Rows::is_done(row))
            else {
                continue;
            };
            // `convergence/write.sql`
            row.settled = true;
            let failed = row.failed > shape.max_failed as i8 || row.succeeded == 0;
            row.state = if failed { BatchState::Failed } else { BatchState::Converged };
            deltas.active -= 1;
            deltas.failed += i8::from(failed);
            watch.reach(if failed { "batch failed" } else { "batch converged" });
        }
        let ready = self.create(scenario, &plan, &mut deltas);
        self.count_task(deltas, watch);
        ready
    }

    /// `convergence/write.sql`: the new rows and their edges.
    fn create(
        &mut self,
        scenario: &Scenario,
        plan: &ConvergencePlan,
        deltas: &mut Deltas,
    ) -> Vec<usize> {
        let mut ready = Vec::new();
        for planned in &plan.create {
            let created = self.steps[planned.step].as_ref().map_or(0, |step| step.created);
            let waits = planned.pending_parents as u8;
            let mut step = Step::new(planned.ready, waits, planned.unsettled, false);
            step.created += created;
            self.steps[planned.step] = Some(step);
            if planned.ready {
                deltas.active += 1;
                deltas.pending -= 1;
                ready.push(planned.step);
            }
        }
        for planned in &plan.create {
            self.insert_edges(scenario, planned.step, planned.parents.iter().map(|p| p.as_str()));
        }
        ready
    }

    /// Whether a batch is to be begun, written on, or sealed: `batches/load_expandable.sql`.
    pub(crate) fn is_to_expand(&self, scenario: &Scenario, batch: usize) -> bool {
        let shape = &scenario.batches[batch];
        let again = scenario.is(Mutant::SealedTwice)
            && self.batches[batch].as_ref().is_some_and(|row| row.state == BatchState::Sealed);
        !self.is_finished() && (self.is_expanding(scenario, shape.analyzer) || again)
    }

    /// One transaction of an expansion: `begin_expansion`, `write_chunk` for one member, or
    /// `seal_expanded`. Returns the children of the analyzer that are ready now.
    pub(crate) fn expand(
        &mut self,
        scenario: &Scenario,
        batch: usize,
        watch: &mut Watch,
    ) -> Vec<usize> {
        let shape = &scenario.batches[batch];
        let Some(row) = self.batches[batch].as_mut() else {
            self.batches[batch] = Some(Batch {
                state: BatchState::Expanding,
                sealed: false,
                settled: false,
                expanded_upto: 0,
                published_upto: 0,
                bundled: 1,
                publisher: None,
                remaining: shape.members as i8,
                succeeded: 0,
                failed: 0,
            });
            return Vec::new();
        };
        if row.expanded_upto < shape.members {
            let slot = shape.first + usize::from(row.expanded_upto);
            row.expanded_upto += 1;
            self.steps[slot] = Some(Step::new(true, 0, false, true));
            return Vec::new();
        }
        row.state = BatchState::Sealed;
        row.sealed = true;
        self.settle_sealed(shape.analyzer, watch)
    }

    /// `release_sealed`: the analyzer's place among the active steps is its batch's now.
    fn settle_sealed(&mut self, analyzer: usize, watch: &mut Watch) -> Vec<usize> {
        let mut deltas = Deltas::default();
        let step = self.at(analyzer);
        step.unsettled = false;
        let expanding = step_transition(step.state, StepEvent::BatchDecided);
        let sealed = expanding.and_then(|state| step_transition(state, StepEvent::BatchSealed));
        watch.require(sealed.is_ok(), "an analyzer was sealed that had not decided");
        let edges = step.children;
        let ready = self.release_children(edges, &mut deltas, watch);
        self.count_task(deltas, watch);
        watch.reach("batch sealed");
        ready
    }

    /// What the counters must be, counted by the rows.
    pub(crate) fn recount(&self, scenario: &Scenario, undecided: usize) -> (i8, i8, i8) {
        let (mut active, mut pending, mut failed) = (0, undecided as i8, 0);
        for (_, step) in self.existing().filter(|(slot, _)| scenario.batch_of(*slot).is_none()) {
            let waits = step.state == tasker_messages::StepState::Pending;
            pending += i8::from(waits);
            active += i8::from(!waits && (step.outcome.is_none() || step.unsettled));
            failed += i8::from(matches!(step.outcome, Some(Outcome { end: End::Error, .. })));
        }
        for batch in self.batches.iter().flatten() {
            let open = matches!(batch.state, BatchState::Sealed | BatchState::Failed);
            active += i8::from(open && !batch.settled);
            failed += i8::from(batch.settled && batch.state == BatchState::Failed);
        }
        (active, pending, failed)
    }

    /// How the members of a batch have ended: succeeded, failed, without an outcome.
    pub(crate) fn count_members(&self, scenario: &Scenario, batch: usize) -> (i8, i8, i8) {
        let mut counts: HashMap<&str, i8> = HashMap::new();
        for (_, step) in self.existing().filter(|(slot, _)| scenario.batch_of(*slot) == Some(batch))
        {
            let key = match step.outcome.map(|outcome| outcome.end) {
                Some(End::Done(_)) => "succeeded",
                Some(End::Error) => "failed",
                Some(End::Cancelled) => "cancelled",
                None => "open",
            };
            *counts.entry(key).or_default() += 1;
        }
        let of = |key| counts.get(key).copied().unwrap_or(0);
        (of("succeeded"), of("failed"), of("open"))
    }
}
