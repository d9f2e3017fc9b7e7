//! When steps come into being that were not there from the start.
//!
//! A convergence has no row until everything it declares has ended, a branch of a decision none
//! until the decision has named it. One transaction loads the facts of a task, asks [`converge`] and
//! writes what it answers.

pub(crate) mod fate;

use std::collections::{HashMap, HashSet};

use tasker_messages::{StepKind, StepName};

use self::fate::{Fate, Fates, is_worker};
use crate::graph::PlannedStep;
use crate::template::Template;

/// What is known about a task's steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskFacts {
    /// The rows that are not members of batches, by the template's step.
    pub steps: HashMap<String, StepFact>,
    /// Batches that are sealed or later, by worker template.
    pub batches: HashMap<String, BatchFact>,
    /// What decisions that have ended well have chosen, by the decision's name.
    pub choices: HashMap<String, Choice>,
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
    /// Whether it was stopped, because more failed than it tolerates.
    pub stopped: bool,
}

/// What one decision has chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// The steps that it creates.
    pub steps: HashSet<String>,
    /// Whether an earlier transaction has acted on it.
    pub settled: bool,
}

/// What follows from the facts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConvergencePlan {
    /// Rows to create, in document order: convergences that run now, branches that were chosen, and
    /// what is behind them.
    pub create: Vec<PlannedStep>,
    /// Positions of convergences that will not run, because nothing is left to converge.
    pub blocked: Vec<usize>,
    /// Positions of steps that will never exist, by decisions that nobody has acted on before.
    /// Batch workers are not among them: they are not counted as steps.
    pub never: Vec<usize>,
}

/// Decides for every step that has no row.
///
/// The same facts give the same plan, and facts that include a plan's rows do not give it again.
pub fn converge(template: &Template, facts: &TaskFacts) -> ConvergencePlan {
    let fates = Fates::of(template, facts, |_| true);
    let positions = || 0..template.steps.len();
    let row = |n| planned_step(template, &fates, n);
    ConvergencePlan {
        create: positions().filter(|&n| fates.is_created(n)).map(row).collect(),
        blocked: positions().filter(|&n| fates[n] == Fate::Blocked).collect(),
        never: newly_never(template, facts, &fates),
    }
}

/// The steps that never exist now and could still exist before the choices that are not settled.
fn newly_never(template: &Template, facts: &TaskFacts, fates: &Fates) -> Vec<usize> {
    if facts.choices.values().all(|choice| choice.settled) {
        return Vec::new();
    }
    let before = Fates::of(template, facts, |choice| choice.settled);
    (0..template.steps.len())
        .filter(|&n| !is_worker(template, n))
        .filter(|&n| fates[n] == Fate::Never && before[n] != Fate::Never)
        .collect()
}

/// How many steps have no row and may still get one, or wait for it in vain: those that the counter of
/// pending steps holds beside rows that are pending. Steps that never exist by decisions nobody has
/// acted on are among them until then.
pub fn undecided_steps(template: &Template, facts: &TaskFacts) -> usize {
    let fates = Fates::of(template, facts, |choice| choice.settled);
    let has_row = |n: usize| facts.steps.contains_key(template.steps[n].name.as_str());
    (0..template.steps.len())
        .filter(|&n| !is_worker(template, n) && !has_row(n) && fates[n] != Fate::Never)
        .count()
}

/// The steps that have a row which nothing in the facts has made possible: convergences of what has not
/// ended, branches that were not chosen. A row stands for what was in front of it when it was made,
/// and that does not change without it.
pub fn unfounded_steps<'a>(template: &'a Template, facts: &TaskFacts) -> Vec<&'a str> {
    let fates = Fates::of(template, facts, |_| true);
    (0..template.steps.len())
        .filter(|&n| facts.steps.contains_key(template.steps[n].name.as_str()))
        .filter(|&n| fates.without_row(template, facts, n) != Fate::Created)
        .filter(|&n| template.is_dynamic(n))
        .map(|n| template.steps[n].name.as_str())
        .collect()
}

/// Each convergence with each of the batch workers that it declares.
pub fn joined_batches(template: &Template) -> impl Iterator<Item = (&str, &str)> {
    let name = |position: usize| template.steps[position].name.as_str();
    let joins = (0..template.steps.len())
        .filter(|&n| template.steps[n].kind == StepKind::DeferredConvergence);
    joins.flat_map(move |join| {
        let parents = template.graph.parents[join].iter().copied();
        parents.filter(|&p| is_worker(template, p)).map(move |p| (name(join), name(p)))
    })
}

fn planned_step(template: &Template, fates: &Fates, position: usize) -> PlannedStep {
    let parents = || template.graph.parents[position].iter().filter(|&&p| !is_worker(template, p));
    let runs_now = template.steps[position].kind == StepKind::DeferredConvergence;
    let holds_back = |&&parent: &&usize| fates[parent] != Fate::Done;
    let pending_parents = if runs_now { 0 } else { parents().filter(holds_back).count() as u32 };
    let has_row = |&&parent: &&usize| !matches!(fates[parent], Fate::Never | Fate::Lost);
    let name = |&parent: &usize| -> StepName { template.steps[parent].name.clone() };
    PlannedStep {
        step: position,
        ready: pending_parents == 0,
        pending_parents,
        unsettled: template.is_unsettled(position),
        parents: parents().filter(has_row).map(name).collect(),
    }
}

#[cfg(test)]
mod tests;
