//! A simple reference model, for tests: what must become of a task in the end, whatever the order in
//! which its steps happen to run. It looks at a template from its end, in one pass, and shares no code
//! with the rules that run tasks.

use std::collections::{HashMap, HashSet};

use tasker_messages::{StepKind, TaskState};

use crate::template::Template;

/// What the handlers of a task will do.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Steps that fail for good.
    pub failing: HashSet<String>,
    /// What decisions choose.
    pub choices: HashMap<String, HashSet<String>>,
    /// Batches by worker.
    pub batches: HashMap<String, BatchScript>,
}

/// What the members of a batch will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchScript {
    /// How many there are.
    pub members: u32,
    /// How many of them fail for good.
    pub failing: u32,
    /// How many failures are tolerated.
    pub budget: u32,
}

/// What becomes of a step; of a batch worker, of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Final {
    /// It ends well.
    Succeeded,
    /// It ends badly.
    Failed,
    /// Its batch is stopped.
    Stopped,
    /// It waits for ever behind a failure, with or without a row.
    Waits,
    /// It would exist if a decision had not failed, and waits for ever for those behind it.
    Lost,
    /// A decision did not choose it.
    Never,
}

/// What becomes of every step, in the order of the template.
pub fn finals(template: &Template, script: &Script) -> Vec<Final> {
    let mut finals = vec![Final::Waits; template.steps.len()];
    for &position in &template.graph.order {
        finals[position] = fate(template, script, &finals, position);
    }
    finals
}

fn fate(template: &Template, script: &Script, finals: &[Final], position: usize) -> Final {
    let step = &template.steps[position];
    let parents = &template.graph.parents[position];
    let of = |wanted: Final| parents.iter().filter(|&&p| finals[p] == wanted).count();
    match step.kind {
        StepKind::BatchWorker => match finals[parents[0]] {
            Final::Succeeded => batch(script, step.name.as_str()),
            Final::Failed => Final::Lost,
            other => other,
        },
        StepKind::DeferredConvergence => {
            let is_batch = |&&p: &&usize| template.steps[p].kind == StepKind::BatchWorker;
            let batches =
                || parents.iter().filter(is_batch).filter(|&&p| finals[p] != Final::Never);
            let joins_a_batch =
                batches().next().is_none() || batches().any(|&p| finals[p] == Final::Succeeded);
            if of(Final::Never) == parents.len() {
                Final::Never
            } else if of(Final::Waits) == 0
                && of(Final::Stopped) == 0
                && of(Final::Succeeded) > 0
                && joins_a_batch
            {
                ends(script, step.name.as_str())
            } else {
                Final::Waits
            }
        }
        _ => plain(template, script, finals, position),
    }
}

fn plain(template: &Template, script: &Script, finals: &[Final], position: usize) -> Final {
    let name = template.steps[position].name.as_str();
    let parents = &template.graph.parents[position];
    let is_decision = |p: usize| template.steps[p].kind == StepKind::Decision;
    let passed_over = |&p: &usize| {
        let chosen = script.choices.get(template.steps[p].name.as_str());
        is_decision(p)
            && finals[p] == Final::Succeeded
            && !chosen.is_some_and(|chosen| chosen.contains(name))
    };
    if parents.iter().any(|&p| finals[p] == Final::Never) || parents.iter().any(passed_over) {
        return Final::Never;
    }
    let lost =
        |&p: &usize| finals[p] == Final::Lost || is_decision(p) && finals[p] == Final::Failed;
    if parents.iter().any(lost) {
        return Final::Lost;
    }
    match parents.iter().all(|&p| finals[p] == Final::Succeeded) {
        true => ends(script, name),
        false => Final::Waits,
    }
}

fn ends(script: &Script, name: &str) -> Final {
    match script.failing.contains(name) {
        true => Final::Failed,
        false => Final::Succeeded,
    }
}

fn batch(script: &Script, worker: &str) -> Final {
    match script.batches.get(worker) {
        Some(batch) if batch.failing > batch.budget => Final::Stopped,
        Some(batch) if batch.failing == batch.members => Final::Failed,
        _ => Final::Succeeded,
    }
}

/// How the task ends, how many steps wait, and how many steps and batches have failed.
pub fn end(template: &Template, finals: &[Final]) -> (TaskState, u32, u32) {
    let steps = || template.steps.iter().zip(finals);
    let waits = steps()
        .filter(|(step, _)| step.kind != StepKind::BatchWorker)
        .filter(|(_, end)| matches!(end, Final::Waits | Final::Lost))
        .count() as u32;
    let failed =
        finals.iter().filter(|end| matches!(end, Final::Failed | Final::Stopped)).count() as u32;
    let state = match (waits, failed) {
        (0, 0) => TaskState::Complete,
        (0, _) => TaskState::Error,
        _ => TaskState::BlockedByFailures,
    };
    (state, waits, failed)
}
