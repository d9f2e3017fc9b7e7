//! What people may do by hand about steps that have ended badly.

use std::collections::BTreeSet;

use tasker_messages::{Refusal, StepKind, StepState, TaskState, code};

use crate::convergence::TaskFacts;
use crate::convergence::fate::{Fate, Fates};
use crate::template::Template;

/// Something that is done by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairAction {
    /// Run it again, with a new retry budget.
    Reset,
    /// Count it as done, without a result.
    Resolve,
    /// Give it this result.
    Complete,
}

impl RepairAction {
    /// Every action.
    pub const ALL: &'static [RepairAction] =
        &[RepairAction::Reset, RepairAction::Resolve, RepairAction::Complete];

    const fn words(self) -> &'static str {
        match self {
            RepairAction::Reset => "reset",
            RepairAction::Resolve => "resolved",
            RepairAction::Complete => "completed",
        }
    }
}

/// A step that is to be repaired, as the transaction found it under its locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairFacts<'a> {
    /// Its task.
    pub task: TaskState,
    /// Its name, for people.
    pub name: &'a str,
    /// What it is.
    pub kind: StepKind,
    /// Its state.
    pub state: StepState,
    /// Whether its batch was stopped, because too many members failed.
    pub in_stopped_batch: bool,
    /// A convergence that declares it and exists already.
    pub joined_by: Option<&'a str>,
}

/// Decides whether anything of a task may be repaired.
///
/// # Errors
/// It was ended by hand.
pub fn check_repaired_task(task: TaskState) -> Result<(), Refusal> {
    if matches!(task, TaskState::Cancelled | TaskState::ResolvedManually) {
        let message = format!("the task is {task}; nothing of it can be repaired");
        return Err(Refusal::new(code::TASK_ENDED, message));
    }
    Ok(())
}

/// Decides whether a step may be repaired.
///
/// # Errors
/// Why it may not, with what can be done instead.
pub fn check_repair(action: RepairAction, facts: &RepairFacts<'_>) -> Result<(), Refusal> {
    let name = facts.name;
    check_repaired_task(facts.task)?;
    if facts.state != StepState::Error {
        let message = format!(
            "step `{name}` is {}; only a step in the state error can be {}",
            facts.state,
            action.words()
        );
        return Err(Refusal::new(code::STEP_NOT_FAILED, message));
    }
    if let Some(join) = facts.joined_by {
        let message = format!(
            "the convergence `{join}` has run with the failure of `{name}`; ask with `cascade` to have \
             it taken back and run again, or submit the task again"
        );
        return Err(Refusal::new(code::AGGREGATOR_RAN, message));
    }
    if facts.in_stopped_batch {
        let message = format!(
            "the batch of `{name}` was stopped and most of its members may never have run; retry the \
             batch as a whole"
        );
        return Err(Refusal::new(code::BATCH_STOPPED, message));
    }
    let decides = matches!(facts.kind, StepKind::Batchable | StepKind::Decision);
    if action == RepairAction::Resolve && decides {
        let message = format!(
            "step `{name}` is a {} step, whose result decides what follows; complete it with a result",
            facts.kind
        );
        return Err(Refusal::new(code::INVALID_REQUEST, message));
    }
    Ok(())
}

impl Template {
    /// The convergences behind a step, at whatever distance. One that has run although the step has
    /// failed has run with its failure: directly, or because what the failed step would have created
    /// counted as failed. Nothing goes through steps that never exist by these facts: what is behind
    /// them alone is as it is whatever becomes of the step.
    pub fn joins_behind(&self, name: &str, facts: &TaskFacts) -> Vec<&str> {
        let never = self.never(facts);
        let mut joins: Vec<&str> =
            self.joins(name, &never).map(|n| self.steps[n].name.as_str()).collect();
        joins.sort_unstable();
        joins
    }

    /// The names of all convergences behind these steps, and of all that is behind those: what would
    /// not be as it is if one of these steps had ended otherwise. Batch workers stand for their batch.
    pub fn behind_joins(&self, names: &[&str], facts: &TaskFacts) -> BTreeSet<&str> {
        let mut facts = facts.clone();
        loop {
            // Without the decisions that are behind themselves: another time they may choose otherwise.
            let never = self.never(&facts);
            let joins = names.iter().flat_map(|name| self.joins(name, &never));
            let mut open: Vec<usize> = joins.collect();
            let mut behind = BTreeSet::new();
            while let Some(n) = open.pop() {
                if behind.insert(self.steps[n].name.as_str()) {
                    open.extend(self.graph.children[n].iter().filter(|&&child| !never[child]));
                }
            }
            let rows = facts.steps.len();
            facts.steps.retain(|name, _| !behind.contains(name.as_str()));
            facts.batches.retain(|name, _| !behind.contains(name.as_str()));
            facts.choices.retain(|name, _| !behind.contains(name.as_str()));
            if facts.steps.len() == rows {
                return behind;
            }
        }
    }

    /// The positions of convergences behind a step.
    fn joins(&self, name: &str, never: &[bool]) -> impl Iterator<Item = usize> {
        let mut seen = vec![false; self.steps.len()];
        let mut open: Vec<usize> =
            self.step(name).map(|(position, _)| position).into_iter().collect();
        while let Some(n) = open.pop() {
            for &child in self.graph.children[n].iter().filter(|&&child| !never[child]) {
                if !std::mem::replace(&mut seen[child], true) {
                    open.push(child);
                }
            }
        }
        let is_join = |&n: &usize| self.steps[n].kind == StepKind::DeferredConvergence;
        (0..seen.len()).filter(move |&n| seen[n]).filter(is_join)
    }

    /// By position, whether a step never exists.
    fn never(&self, facts: &TaskFacts) -> Vec<bool> {
        let fates = Fates::of(self, facts, |_| true);
        (0..self.steps.len()).map(|n| fates[n] == Fate::Never).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convergence::{Choice, Ending, StepFact};

    const FACTS: RepairFacts<'static> = RepairFacts {
        task: TaskState::BlockedByFailures,
        name: "a",
        kind: StepKind::Standard,
        state: StepState::Error,
        in_stopped_batch: false,
        joined_by: None,
    };

    fn answer(action: RepairAction, facts: RepairFacts<'_>) -> Result<(), String> {
        check_repair(action, &facts).map_err(|refusal| refusal.code)
    }

    /// Every state of step and task with every action: allowed with its effect, or refused.
    #[test]
    fn every_state_and_action() {
        for &action in RepairAction::ALL {
            for &state in StepState::ALL {
                let expect = match state {
                    StepState::Error => Ok(()),
                    _ => Err(code::STEP_NOT_FAILED.to_owned()),
                };
                assert_eq!(answer(action, RepairFacts { state, ..FACTS }), expect, "{state}");
            }
            for &task in TaskState::ALL {
                let expect = match task {
                    TaskState::Cancelled | TaskState::ResolvedManually => {
                        Err(code::TASK_ENDED.to_owned())
                    }
                    _ => Ok(()),
                };
                assert_eq!(answer(action, RepairFacts { task, ..FACTS }), expect, "{task}");
            }
            for &kind in StepKind::ALL {
                let decides = matches!(kind, StepKind::Batchable | StepKind::Decision);
                let expect = match action == RepairAction::Resolve && decides {
                    true => Err(code::INVALID_REQUEST.to_owned()),
                    false => Ok(()),
                };
                assert_eq!(answer(action, RepairFacts { kind, ..FACTS }), expect, "{kind}");
            }
            let joined = RepairFacts { joined_by: Some("j"), ..FACTS };
            assert_eq!(answer(action, joined), Err(code::AGGREGATOR_RAN.to_owned()));
            let stopped = RepairFacts { in_stopped_batch: true, ..FACTS };
            assert_eq!(answer(action, stopped), Err(code::BATCH_STOPPED.to_owned()));
        }
    }

    #[test]
    fn who_joins_whom() {
        let steps = ["a -", "s b", "w w s", "j j w a", "k j w", "x - j"];
        let template = crate::testing::template(&steps);
        let facts = TaskFacts::default();
        let joins = |name| template.joins_behind(name, &facts);
        assert_eq!((joins("w"), joins("a")), (vec!["j", "k"], vec!["j"]));
        assert_eq!(joins("s"), ["j", "k"], "by its members");
        assert!(joins("j").is_empty() && joins("x").is_empty());
        let behind = |names: &[&str]| {
            let behind = template.behind_joins(names, &facts).into_iter();
            behind.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(behind(&["w"]), ["j", "k", "x"]);
        assert_eq!(behind(&["a"]), ["j", "x"]);
        assert_eq!(behind(&["j", "x"]), [""; 0], "it is itself behind nothing that it would undo");
    }

    /// A step that a decision has not chosen stands in between.
    #[test]
    fn nothing_goes_through_what_never_exists() {
        let template = crate::testing::template(&[
            "a -", "d d", "x - a d", "y - d", "j j x y", "e d j", "z - e", "k j z d",
        ]);
        let choice = |names: &[&str]| {
            let steps = names.iter().map(|&name| name.to_owned()).collect();
            Choice { steps, settled: true }
        };
        let mut facts = TaskFacts::default();
        let row = StepFact { ended: Some(Ending::Succeeded) };
        for name in ["d", "y", "j", "e", "k"] {
            facts.steps.insert(name.to_owned(), row);
        }
        facts.steps.insert("a".to_owned(), StepFact { ended: Some(Ending::Failed) });
        facts.choices.insert("d".to_owned(), choice(&["y"]));
        facts.choices.insert("e".to_owned(), choice(&[]));
        let none: [&str; 0] = [];
        assert_eq!(template.joins_behind("a", &facts), none, "x never exists");
        assert!(template.behind_joins(&["a"], &facts).is_empty());
        // z was not chosen, by a decision that is behind the join itself: it may be another time.
        let behind = template.behind_joins(&["y"], &facts);
        assert_eq!(behind.into_iter().collect::<Vec<_>>(), ["e", "j", "k", "z"]);
        facts.choices.insert("d".to_owned(), choice(&["x", "y"]));
        facts.steps.insert("x".to_owned(), StepFact::default());
        assert_eq!(template.joins_behind("a", &facts), ["j"]);
    }
}
