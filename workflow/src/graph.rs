//! Which steps of a template exist when, and who waits for whom.

use std::collections::HashMap;

use tasker_messages::{StepKind, StepName};

use crate::template::{StepTemplate, Template};

/// The edges of a template by the steps' positions.
///
/// A step is *dynamic* if it is a batch worker, a convergence or a branch of a decision, or behind
/// one. Dynamic steps have no row when the task is submitted: members come with their batch, a
/// convergence when its parents have ended, the others when everything in front of them exists and
/// every decision in front of them has named them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Graph {
    positions: HashMap<StepName, usize>,
    pub(crate) parents: Vec<Vec<usize>>,
    pub(crate) children: Vec<Vec<usize>>,
    /// All positions, parents before their children.
    pub(crate) order: Vec<usize>,
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
        let dynamic = dynamic_steps(steps, &children);
        let declared_by_join = |n: usize| {
            children[n]
                .iter()
                .any(|&c| dynamic[c] && steps[c].kind == StepKind::DeferredConvergence)
        };
        let unsettled = (0..steps.len())
            .map(|n| {
                matches!(steps[n].kind, StepKind::Batchable | StepKind::Decision)
                    || declared_by_join(n)
            })
            .collect();
        let order = parents_first(&parents, &children);
        Self { positions, parents, children, order, dynamic, unsettled }
    }
}

/// All positions, parents before their children; there is no circle.
fn parents_first(parents: &[Vec<usize>], children: &[Vec<usize>]) -> Vec<usize> {
    let mut missing: Vec<usize> = parents.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..parents.len()).filter(|&n| missing[n] == 0).collect();
    let mut next = 0;
    while let Some(&n) = order.get(next) {
        next += 1;
        for &child in &children[n] {
            missing[child] -= 1;
            if missing[child] == 0 {
                order.push(child);
            }
        }
    }
    order
}

fn dynamic_steps(steps: &[StepTemplate], children: &[Vec<usize>]) -> Vec<bool> {
    let mut dynamic = vec![false; steps.len()];
    let mut open: Vec<usize> =
        (0..steps.len()).filter(|&n| begins_dynamic(steps[n].kind)).collect();
    let decisions = (0..steps.len()).filter(|&n| steps[n].kind == StepKind::Decision);
    open.extend(decisions.flat_map(|n| &children[n]));
    while let Some(n) = open.pop() {
        if !dynamic[n] {
            dynamic[n] = true;
            open.extend(&children[n]);
        }
    }
    dynamic
}

/// Members come with their batch. A convergence comes when its parents have ended, also if all of
/// them exist from the beginning: only the transaction that looks at all of them together can tell
/// that every one failed, and a join never runs on an empty set.
fn begins_dynamic(kind: StepKind) -> bool {
    matches!(kind, StepKind::BatchWorker | StepKind::DeferredConvergence)
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
    /// Parents without success, which it waits for; a convergence comes when it waits for none.
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

    /// Whether its tasks may have batches.
    pub fn has_batches(&self) -> bool {
        self.steps.iter().any(|step| step.kind == StepKind::Batchable)
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

    /// Whether the step at this position has no row when a task is submitted.
    pub(crate) fn is_dynamic(&self, position: usize) -> bool {
        self.graph.dynamic[position]
    }

    /// Whether a convergence transaction looks at the end of this step.
    pub fn is_looked_at(&self, name: &str) -> bool {
        self.step(name).is_some_and(|(position, _)| self.is_unsettled(position))
    }

    pub(crate) fn is_unsettled(&self, position: usize) -> bool {
        self.graph.unsettled[position]
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{shown, template};

    fn check(steps: &[&str], expect: &[&str], active: u32, pending: u32) {
        let template = template(steps);
        let plan = template.submission();
        assert_eq!(shown(&template, &plan.steps), expect, "{steps:?}");
        assert_eq!((plan.active, plan.pending), (active, pending), "{steps:?}");
    }

    #[test]
    fn submissions() {
        check(&["a -"], &["a 0 ready"], 1, 0);
        check(&["a -", "b - a", "c - b"], &["a 0 ready", "b 1 <- a", "c 1 <- b"], 1, 2);
        // The order of the document need not be that of the graph.
        check(&["b - a c", "a -", "c - a"], &["b 2 <- a c", "a 0 ready", "c 1 <- a"], 1, 2);
        // A convergence is not there from the start, but it is counted.
        check(&["a -", "b -", "j j a b"], &["a 0 ready unsettled", "b 0 ready unsettled"], 2, 1);
        check(&["s b", "w w s", "j j w"], &["s 0 ready unsettled"], 1, 1);
        // Nor is what is behind it. A static step that it declares is looked at when it ends.
        check(
            &["a -", "s b a", "w w s", "j j w a", "k - j", "l j k"],
            &["a 0 ready unsettled", "s 1 unsettled <- a"],
            1,
            4,
        );
        // A static step that is only behind the analyzer is an ordinary one.
        check(&["s b", "w w s", "j j w", "x - s"], &["s 0 ready unsettled", "x 1 <- s"], 1, 2);
        // Branches of a decision, and what is behind them, are not there from the start.
        check(
            &["a -", "d d a", "x - d", "y b d", "w w y", "z - x", "j j w z"],
            &["a 0 ready", "d 1 unsettled <- a"],
            1,
            5,
        );
        // A batch behind a batch.
        check(
            &["s b", "w w s", "j j w", "s2 b j", "w2 w s2", "j2 j w2"],
            &["s 0 ready unsettled"],
            1,
            3,
        );
    }

    #[test]
    fn look_ups() {
        let template = template(&["a -", "s b", "w w s", "j j w a", "k - j a", "x - s"]);
        let name = |step: Option<&crate::StepTemplate>| step.map(|s| s.name.as_str().to_owned());
        assert_eq!(template.step("j").map(|(n, _)| n), Some(3));
        assert!(template.step("J").is_none() && template.step("").is_none());
        assert_eq!(name(template.worker_of("s")).as_deref(), Some("w"));
        assert_eq!(name(template.batchable_of("w")).as_deref(), Some("s"));
        for other in ["a", "w", "j", "none"] {
            assert_eq!(name(template.worker_of(other)), None, "{other}");
        }
        for other in ["a", "s", "j", "none"] {
            assert_eq!(name(template.batchable_of(other)), None, "{other}");
        }
    }

    #[test]
    fn a_long_chain_needs_no_stack_and_little_time() {
        let mut steps = vec!["n0 -".to_owned()];
        steps.extend((1..3000).map(|n| format!("n{n} - n{}", n - 1)));
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        let plan = template(&steps).submission();
        assert_eq!((plan.steps.len(), plan.active, plan.pending), (3000, 1, 2999));
    }
}
