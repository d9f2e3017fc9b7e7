//! What people may do by hand about steps that have ended badly.

use std::collections::BTreeSet;

use tasker_messages::{Refusal, StepKind, StepState, TaskState, code};

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
    /// counted as failed.
    pub fn joins_behind(&self, name: &str) -> Vec<&str> {
        let Some((position, _)) = self.step(name) else { return Vec::new() };
        let mut seen = vec![false; self.steps.len()];
        let mut open = vec![position];
        let mut joins = Vec::new();
        while let Some(n) = open.pop() {
            for &child in &self.graph.children[n] {
                if std::mem::replace(&mut seen[child], true) {
                    continue;
                }
                open.push(child);
                if self.steps[child].kind == StepKind::DeferredConvergence {
                    joins.push(self.steps[child].name.as_str());
                }
            }
        }
        joins.sort_unstable();
        joins
    }

    /// The names of all convergences behind these steps, and of all that is behind those: what would
    /// not be as it is if one of these steps had ended otherwise. Batch workers stand for their batch.
    pub fn behind_joins<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&str> {
        let joins = names.into_iter().flat_map(|name| self.joins_behind(name));
        let mut open: Vec<usize> =
            joins.filter_map(|join| self.step(join)).map(|(position, _)| position).collect();
        let mut behind = BTreeSet::new();
        while let Some(n) = open.pop() {
            if behind.insert(self.steps[n].name.as_str()) {
                open.extend(&self.graph.children[n]);
            }
        }
        behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let joins = |name| template.joins_behind(name);
        assert_eq!((joins("w"), joins("a")), (vec!["j", "k"], vec!["j"]));
        assert_eq!(joins("s"), ["j", "k"], "by its members");
        assert!(joins("j").is_empty() && joins("x").is_empty());
        let behind = |names: &[&str]| {
            let names = names.iter().copied();
            template.behind_joins(names).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(behind(&["w"]), ["j", "k", "x"]);
        assert_eq!(behind(&["a"]), ["j", "x"]);
        assert_eq!(behind(&["j", "x"]), [""; 0], "it is itself behind nothing that it would undo");
    }
}
