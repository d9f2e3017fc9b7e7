//! Which steps of a template exist when, and who waits for whom.

use std::collections::HashMap;

use tasker_messages::{StepKind, StepName};

use crate::template::{StepTemplate, Template};

/// The edges of a template by the steps' positions.
///
/// A step is *dynamic* if it is a batch worker or behind one. Dynamic steps have no row when the
/// task is submitted: members come with their batch, the others with the first convergence in front
/// of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Graph {
    positions: HashMap<StepName, usize>,
    pub(crate) parents: Vec<Vec<usize>>,
    pub(crate) children: Vec<Vec<usize>>,
    dynamic: Vec<bool>,
    /// Steps whose end a convergence transaction must look at.
    unsettled: Vec<bool>,
}

impl Graph {
    /// The graph of checked steps: every dependency exists and there is no circle.
    pub(crate) fn new(steps: &[StepTemplate]) -> Self {
        let positions: HashMap<StepName, usize> =
            steps.iter().enumerate().map(|(n, step)| (step.name.clone(), n)).collect();
        let parents: Vec<Vec<usize>> = steps
            .iter()
            .map(|s| s.dependencies.iter().filter_map(|d| positions.get(d).copied()).collect())
            .collect();
        let mut children = vec![Vec::new(); steps.len()];
        for (n, list) in parents.iter().enumerate() {
            list.iter().for_each(|&parent| children[parent].push(n));
        }
        let dynamic = behind_workers(steps, &children);
        let declared_by_join = |n: usize| {
            children[n]
                .iter()
                .any(|&c| dynamic[c] && steps[c].kind == StepKind::DeferredConvergence)
        };
        let unsettled = (0..steps.len())
            .map(|n| steps[n].kind == StepKind::Batchable || declared_by_join(n))
            .collect();
        Self { positions, parents, children, dynamic, unsettled }
    }
}

fn behind_workers(steps: &[StepTemplate], children: &[Vec<usize>]) -> Vec<bool> {
    let mut dynamic = vec![false; steps.len()];
    let mut open: Vec<usize> =
        (0..steps.len()).filter(|&n| steps[n].kind == StepKind::BatchWorker).collect();
    while let Some(n) = open.pop() {
        if !dynamic[n] {
            dynamic[n] = true;
            open.extend(&children[n]);
        }
    }
    dynamic
}

/// The rows of a new task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionPlan {
    /// The steps that exist at once, in document order.
    pub steps: Vec<PlannedStep>,
    /// How many of them are ready.
    pub active: u32,
    /// How many steps wait, whether their rows exist yet or not. Batch workers are not steps of
    /// their own and do not count.
    pub pending: u32,
}

/// One row to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// The position in [`Template::steps`].
    pub step: usize,
    /// Whether it can run at once.
    pub ready: bool,
    /// Parents that it waits for: those without success, for a convergence those that have not
    /// ended.
    pub pending_parents: u32,
    /// Whether a convergence transaction must look at its end.
    pub unsettled: bool,
    /// The edges: parents that have rows or get them in the same plan.
    pub parents: Vec<StepName>,
}

impl Template {
    /// The rows of a new task of this template.
    pub fn submission(&self) -> SubmissionPlan {
        let steps: Vec<PlannedStep> = (0..self.steps.len())
            .filter(|&n| !self.is_dynamic(n))
            .map(|n| PlannedStep {
                step: n,
                ready: self.graph.parents[n].is_empty(),
                pending_parents: self.graph.parents[n].len() as u32,
                unsettled: self.is_unsettled(n),
                parents: self.steps[n].dependencies.clone(),
            })
            .collect();
        let active = steps.iter().filter(|step| step.ready).count();
        let counted = self.steps.iter().filter(|s| s.kind != StepKind::BatchWorker).count();
        SubmissionPlan { steps, active: active as u32, pending: (counted - active) as u32 }
    }

    /// A step by name, with its position.
    pub fn step(&self, name: &str) -> Option<(usize, &StepTemplate)> {
        // Names are compared as text: what is no valid name is not there.
        let name = StepName::new(name).ok()?;
        let &position = self.graph.positions.get(&name)?;
        Some((position, self.steps.get(position)?))
    }

    /// The batch worker of a batchable step.
    pub fn worker_of(&self, batchable: &str) -> Option<&StepTemplate> {
        let (position, step) = self.step(batchable)?;
        let mut children = self.graph.children[position].iter().map(|&child| &self.steps[child]);
        children.find(|c| step.kind == StepKind::Batchable && c.kind == StepKind::BatchWorker)
    }

    /// The batchable step of a batch worker.
    pub fn batchable_of(&self, worker: &str) -> Option<&StepTemplate> {
        let (position, step) = self.step(worker)?;
        let mut parents = self.graph.parents[position].iter().map(|&parent| &self.steps[parent]);
        parents.find(|p| step.kind == StepKind::BatchWorker && p.kind == StepKind::Batchable)
    }

    /// The static steps that dynamic steps other than batch workers depend on, in document order.
    pub fn dynamic_parents(&self) -> Vec<&StepName> {
        let comes_later =
            |&child: &usize| self.is_dynamic(child) && self.steps[child].kind != StepKind::BatchWorker;
        (0..self.steps.len())
            .filter(|&n| !self.is_dynamic(n) && self.graph.children[n].iter().any(comes_later))
            .map(|n| &self.steps[n].name)
            .collect()
    }

    /// Whether the step at this position has no row when a task is submitted.
    pub(crate) fn is_dynamic(&self, position: usize) -> bool {
        self.graph.dynamic[position]
    }

    pub(crate) fn is_unsettled(&self, position: usize) -> bool {
        self.graph.unsettled[position]
    }
}
