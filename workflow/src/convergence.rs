//! When a convergence comes into being.
//!
//! A convergence has no row until everything it declares has ended: then one transaction loads the
//! facts, asks [`converge`] and inserts what it answers.

use std::collections::{HashMap, HashSet};

use tasker_messages::{StepKind, StepName};

use crate::graph::PlannedStep;
use crate::template::Template;

/// What is known about a task's steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskFacts {
    /// The rows that are not members of batches, by the template's step.
    pub steps: HashMap<String, StepFact>,
    /// Batches that are sealed or later, by worker template.
    pub batches: HashMap<String, BatchFact>,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepFact {
    /// How it ended; `None` while it has not.
    pub ended: Option<Ending>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a result.
    Succeeded,
    /// With an error or by a stop.
    Failed,
}

/// One sealed batch in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchFact {
    /// How many members have not ended.
    pub remaining: u32,
    /// How many succeeded.
    pub succeeded: u32,
    /// How many failed.
    pub failed: u32,
}

/// What follows from the facts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConvergencePlan {
    /// Rows to create, in document order: convergences that run now, and what is behind them.
    pub create: Vec<PlannedStep>,
    /// Positions of convergences that will not run, because nothing is left to converge.
    pub blocked: Vec<usize>,
}

/// A declared parent as a convergence sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parent {
    /// Not decided, not there or not ended.
    Live,
    Done,
    Failed,
}

/// Decides for every convergence that has no row.
///
/// The same facts give the same plan, and facts that include a plan's rows do not give it again.
pub fn converge(template: &Template, facts: &TaskFacts) -> ConvergencePlan {
    let mut plan = ConvergencePlan::default();
    let mut created = Vec::new();
    for position in (0..template.steps.len()).filter(|&n| is_open(template, facts, n)) {
        match verdict(template, facts, position) {
            Verdict::Wait => {}
            Verdict::Blocked => plan.blocked.push(position),
            Verdict::Create => created.push(position),
        }
    }
    plan.create = with_descendants(template, facts, created);
    plan
}

fn is_open(template: &Template, facts: &TaskFacts, position: usize) -> bool {
    let step = &template.steps[position];
    step.kind == StepKind::DeferredConvergence && !facts.steps.contains_key(step.name.as_str())
}

enum Verdict {
    Wait,
    Blocked,
    Create,
}

fn verdict(template: &Template, facts: &TaskFacts, position: usize) -> Verdict {
    let parents = &template.graph.parents[position];
    let seen = |&parent: &usize| (parent, parent_state(template, facts, parent));
    let states: Vec<(usize, Parent)> = parents.iter().map(seen).collect();
    if states.iter().any(|&(_, state)| state == Parent::Live) {
        return Verdict::Wait;
    }
    let done = |&(_, state): &(usize, Parent)| state == Parent::Done;
    let mut batches = states.iter().filter(|&&(parent, _)| is_worker(template, parent)).peekable();
    let empty = batches.peek().is_some() && !batches.any(done);
    if empty || !states.iter().any(done) { Verdict::Blocked } else { Verdict::Create }
}

fn parent_state(template: &Template, facts: &TaskFacts, position: usize) -> Parent {
    if is_worker(template, position) {
        return batch_state(template, facts, position);
    }
    let name = template.steps[position].name.as_str();
    match facts.steps.get(name).and_then(|fact| fact.ended) {
        None => Parent::Live,
        Some(Ending::Succeeded) => Parent::Done,
        Some(Ending::Failed) => Parent::Failed,
    }
}

fn batch_state(template: &Template, facts: &TaskFacts, worker: usize) -> Parent {
    let worker = template.steps[worker].name.as_str();
    if let Some(batch) = facts.batches.get(worker) {
        return match (batch.remaining, batch.succeeded) {
            (0, 0) => Parent::Failed,
            (0, _) => Parent::Done,
            _ => Parent::Live,
        };
    }
    // Without a sealed batch only the failure of the analyzer is an end; its success is followed by
    // the expansion.
    let analyzer = template.batchable_of(worker).map(|step| step.name.as_str());
    match analyzer.and_then(|name| facts.steps.get(name)).and_then(|fact| fact.ended) {
        Some(Ending::Failed) => Parent::Failed,
        Some(Ending::Succeeded) | None => Parent::Live,
    }
}

/// The convergences and, transitively, every step behind them of which all parents now exist.
fn with_descendants(
    template: &Template,
    facts: &TaskFacts,
    created: Vec<usize>,
) -> Vec<PlannedStep> {
    let run_now: HashSet<usize> = created.iter().copied().collect();
    let mut planned = run_now.clone();
    let mut open = created;
    while let Some(position) = open.pop() {
        for &child in &template.graph.children[position] {
            let exists = |&parent: &usize| {
                planned.contains(&parent)
                    || facts.steps.contains_key(template.steps[parent].name.as_str())
            };
            let parents = &template.graph.parents[child];
            // Members come with their batch, convergences when all of their parents have ended.
            let kind = template.steps[child].kind;
            let comes_along =
                !matches!(kind, StepKind::BatchWorker | StepKind::DeferredConvergence)
                    && !facts.steps.contains_key(template.steps[child].name.as_str())
                    && parents.iter().all(exists);
            if comes_along && planned.insert(child) {
                open.push(child);
            }
        }
    }
    let mut positions: Vec<usize> = planned.into_iter().collect();
    positions.sort_unstable();
    let row = |position| planned_step(template, facts, position, run_now.contains(&position));
    positions.into_iter().map(row).collect()
}

fn planned_step(
    template: &Template,
    facts: &TaskFacts,
    position: usize,
    run_now: bool,
) -> PlannedStep {
    let parents = || template.graph.parents[position].iter().filter(|&&p| !is_worker(template, p));
    let holds_back = |&&parent: &&usize| parent_state(template, facts, parent) != Parent::Done;
    let pending_parents = if run_now { 0 } else { parents().filter(holds_back).count() as u32 };
    let name = |&parent: &usize| -> StepName { template.steps[parent].name.clone() };
    PlannedStep {
        step: position,
        ready: pending_parents == 0,
        pending_parents,
        unsettled: template.is_unsettled(position),
        parents: parents().map(name).collect(),
    }
}

fn is_worker(template: &Template, position: usize) -> bool {
    template.steps[position].kind == StepKind::BatchWorker
}

#[cfg(test)]
mod tests;
