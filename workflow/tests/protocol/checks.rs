//! What must hold in every state, and between a state and the next.

use tasker_messages::{BatchState, StepKind, TaskState};
use tasker_workflow::model::{BatchScript, Script, end, finals};
use tasker_workflow::undecided_steps;

use crate::rows::{End, Rows, Step};
use crate::scenario::Scenario;
use crate::watch::Watch;

/// Looks at the rows as a transaction has left them.
pub(crate) fn check(scenario: &Scenario, before: &Rows, after: &Rows, watch: &mut Watch) {
    for (slot, step) in after.existing() {
        check_step(scenario, slot, step, watch);
        if let Some(before) = before.step(slot) {
            check_change(before, step, watch);
        }
    }
    check_batches(scenario, after, watch);
    check_joins(scenario, after, watch);
    check_parents(scenario, after, watch);
    check_task(scenario, before, after, watch);
}

fn check_step(scenario: &Scenario, slot: usize, step: &Step, watch: &mut Watch) {
    watch.require(step.applied <= 1, "an outcome was applied twice");
    watch.require(step.created == 1, "a step was created twice");
    let fits = step.outcome.is_none_or(|outcome| outcome.attempt == step.attempt);
    watch.require(fits, "an outcome is not the current attempt's");
    let most = scenario.max_attempts(slot);
    watch.require(u32::from(step.tries) <= most, "more tries than the budget");
    watch.require(step.tries <= step.excuses, "a try was charged although no worker vanished");
    watch.require(step.sent_seq <= step.dispatch_seq, "sent what was never dispatched");
}

fn check_change(before: &Step, after: &Step, watch: &mut Watch) {
    watch.require(before.attempt <= after.attempt, "an attempt fell");
    watch.require(before.dispatch_seq <= after.dispatch_seq, "a dispatch number fell");
    let kept = before.outcome.is_none() || before.outcome == after.outcome;
    watch.require(kept, "an outcome changed");
}

/// The counters equal the counted rows, in every snapshot.
fn check_batches(scenario: &Scenario, rows: &Rows, watch: &mut Watch) {
    for (n, shape) in scenario.batches.iter().enumerate() {
        let Some(batch) = &rows.batches[n] else { continue };
        let (succeeded, failed, open) = rows.count_members(scenario, n);
        if batch.sealed {
            watch.require(batch.remaining == open, "what remains of a batch is miscounted");
        }
        let ended = batch.succeeded == succeeded && batch.failed == failed;
        watch.require(ended, "what ended of a batch is miscounted");
        watch.require(batch.published_upto <= shape.members, "more members published than exist");
        let converged = batch.state != BatchState::Converged || batch.remaining == 0;
        watch.require(converged, "a batch converged with members left");
    }
}

/// A convergence has a row only when everything that it declares has ended.
fn check_joins(scenario: &Scenario, rows: &Rows, watch: &mut Watch) {
    let joins = rows.existing().filter(|(s, _)| scenario.kind(*s) == StepKind::DeferredConvergence);
    for (slot, _) in joins {
        for parent in &scenario.template.steps[slot].dependencies {
            let (position, _) = scenario.template.step(parent.as_str()).expect("a step");
            let ended = match scenario.batches.iter().position(|b| b.worker == position) {
                Some(n) => rows.batches[n].as_ref().is_none_or(|b| b.sealed && b.remaining == 0),
                None => rows.step(position).is_none_or(|step| step.outcome.is_some()),
            };
            watch.require(ended, "an aggregator exists before all its parents have ended");
        }
    }
}

/// A step waits for as many parents as have not succeeded, and runs when there are none.
fn check_parents(scenario: &Scenario, rows: &Rows, watch: &mut Watch) {
    let succeeded = |slot: usize, step: &Step| {
        let decides = matches!(scenario.kind(slot), StepKind::Batchable | StepKind::Decision);
        let done = matches!(step.outcome, Some(outcome) if matches!(outcome.end, End::Done(_)));
        done && !(decides && step.unsettled)
    };
    let waiting = rows.existing().filter(|(slot, step)| {
        scenario.kind(*slot) != StepKind::DeferredConvergence && step.outcome.is_none()
    });
    for (slot, step) in waiting {
        let parents = rows.existing().filter(|(_, parent)| parent.children & (1 << slot) != 0);
        let left = parents.filter(|(n, parent)| !succeeded(*n, parent)).count();
        let right = usize::from(step.pending_parents) == left;
        watch.require(right, "a step waits for another number of parents than it has");
    }
}

/// A task that its steps have ended has ended as the reference model of the crate says that it must.
fn check_end(scenario: &Scenario, rows: &Rows, watch: &mut Watch) {
    let mut script = Script::default();
    for (slot, step) in rows.existing().filter(|(slot, _)| scenario.batch_of(*slot).is_none()) {
        let name = scenario.template.steps[slot].name.to_string();
        match step.outcome.map(|outcome| outcome.end) {
            Some(End::Done(choice)) if scenario.kind(slot) == StepKind::Decision => {
                let steps = scenario.choices[usize::from(choice)].iter();
                script.choices.insert(name, steps.map(|&step| step.to_owned()).collect());
            }
            Some(End::Error) => _ = script.failing.insert(name),
            _ => {}
        }
    }
    for (n, shape) in scenario.batches.iter().enumerate() {
        let (_, failing, _) = rows.count_members(scenario, n);
        let (members, budget) = (u32::from(shape.members), u32::from(shape.max_failed));
        let batch = BatchScript { members, failing: failing as u32, budget };
        script.batches.insert(scenario.template.steps[shape.worker].name.to_string(), batch);
    }
    let (state, ..) = end(&scenario.template, &finals(&scenario.template, &script));
    if rows.task.state != state {
        watch.broken(format!("the task ended as {}, and must end as {state}", rows.task.state));
    }
}

fn check_task(scenario: &Scenario, before: &Rows, rows: &Rows, watch: &mut Watch) {
    watch.require(rows.task.ends <= 1, "the task ended twice");
    let revived = before.is_finished() && before.task != rows.task;
    watch.require(!revived, "a task changed after its end");
    if rows.is_finished() {
        if !before.is_finished() && rows.task.state != TaskState::Cancelled {
            check_end(scenario, rows, watch);
        }
        return;
    }
    let undecided = undecided_steps(&scenario.template, &rows.facts(scenario));
    let counted = rows.recount(scenario, undecided);
    let stored = (rows.task.active, rows.task.pending, rows.task.failed);
    if counted != stored {
        watch.broken(format!(
            "the counters of the task are {stored:?} (active, pending, failed), its rows {counted:?}"
        ));
    }
    watch.require(stored.0 > 0, "a task without active steps has not ended");
}
