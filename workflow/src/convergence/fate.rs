//! What has become, or will become, of each step of a task.

use std::ops::Index;

use tasker_messages::StepKind;

use super::{Choice, Ending, TaskFacts};
use crate::template::Template;

/// What is known about the existence and the end of one step; a batch worker stands for its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has no row, and what decides about it has not happened yet.
    Open,
    /// It is there and has not ended.
    Live,
    /// It has ended well.
    Done,
    /// It has ended badly.
    Failed,
    /// It gets its row now.
    Created,
    /// A decision did not choose it or something that it needs.
    Never,
    /// A batch that was stopped: whatever of it succeeded is not aggregated.
    Stopped,
    /// What would have created it has failed: to a convergence it has ended badly.
    Lost,
    /// A convergence that has nothing to converge.
    Blocked,
}

/// The fates of all steps of a task, by position.
pub(crate) struct Fates(Vec<Fate>);

impl Index<usize> for Fates {
    type Output = Fate;

    fn index(&self, position: usize) -> &Fate {
        &self.0[position]
    }
}

impl Fates {
    /// The fates as far as they follow from the facts and from those choices that are `seen`.
    pub(crate) fn of(
        template: &Template,
        facts: &TaskFacts,
        seen: impl Fn(&Choice) -> bool,
    ) -> Self {
        let mut fates = Self(vec![Fate::Open; template.steps.len()]);
        // Parents first, so that each looks only at what is decided.
        for &position in &template.graph.order {
            fates.0[position] = fates.fate(template, facts, &seen, position);
        }
        fates
    }

    pub(crate) fn is_created(&self, position: usize) -> bool {
        self[position] == Fate::Created
    }

    /// What would become of a step if it had no row.
    pub(crate) fn without_row(
        &self,
        template: &Template,
        facts: &TaskFacts,
        position: usize,
    ) -> Fate {
        self.rowless(template, facts, |_| true, position)
    }

    fn fate(
        &self,
        template: &Template,
        facts: &TaskFacts,
        seen: impl Fn(&Choice) -> bool,
        position: usize,
    ) -> Fate {
        let step = &template.steps[position];
        if let Some(fact) = facts.steps.get(step.name.as_str()) {
            return match fact.ended {
                None => Fate::Live,
                Some(Ending::Succeeded) => Fate::Done,
                Some(Ending::Failed) => Fate::Failed,
            };
        }
        self.rowless(template, facts, seen, position)
    }

    fn rowless(
        &self,
        template: &Template,
        facts: &TaskFacts,
        seen: impl Fn(&Choice) -> bool,
        position: usize,
    ) -> Fate {
        match template.steps[position].kind {
            StepKind::BatchWorker => self.batch(template, facts, position),
            StepKind::DeferredConvergence => self.convergence(template, position),
            _ if template.is_dynamic(position) => self.branch(template, facts, seen, position),
            // A static step has its row from the start.
            _ => Fate::Open,
        }
    }

    fn batch(&self, template: &Template, facts: &TaskFacts, worker: usize) -> Fate {
        if let Some(batch) = facts.batches.get(template.steps[worker].name.as_str()) {
            return match (batch.remaining, batch.succeeded) {
                (1.., _) => Fate::Live,
                (0, _) if batch.stopped => Fate::Stopped,
                (0, 0) => Fate::Failed,
                (0, _) => Fate::Done,
            };
        }
        // Without a sealed batch only the failure of the analyzer is an end; its success is followed
        // by the expansion.
        match template.graph.parents[worker].first().map(|&analyzer| self[analyzer]) {
            Some(Fate::Never) => Fate::Never,
            Some(Fate::Failed | Fate::Lost) => Fate::Lost,
            _ => Fate::Open,
        }
    }

    /// A convergence runs over the intersection of what it declares and what exists: when all of
    /// that has ended, and something of it has ended well. Where it declares batches, one of those
    /// that exist must have a member that succeeded: no join passes on an empty set. None of them may
    /// have been stopped.
    fn convergence(&self, template: &Template, position: usize) -> Fate {
        let parents = &template.graph.parents[position];
        let there = || parents.iter().copied().filter(|&parent| self[parent] != Fate::Never);
        let ended = |parent: usize| {
            matches!(self[parent], Fate::Done | Fate::Failed | Fate::Stopped | Fate::Lost)
        };
        if there().next().is_none() {
            return Fate::Never;
        }
        if !there().all(ended) {
            return Fate::Open;
        }
        let done = |parent: usize| self[parent] == Fate::Done;
        let mut batches = there().filter(|&parent| is_worker(template, parent)).peekable();
        let nothing_to_join = batches.peek().is_some() && !batches.any(done);
        let stopped = there().any(|parent| self[parent] == Fate::Stopped);
        let blocked = nothing_to_join || stopped || !there().any(done);
        if blocked { Fate::Blocked } else { Fate::Created }
    }

    /// A step behind decisions or convergences exists when everything in front of it does and every
    /// decision that it depends on has named it.
    fn branch(
        &self,
        template: &Template,
        facts: &TaskFacts,
        seen: impl Fn(&Choice) -> bool,
        position: usize,
    ) -> Fate {
        let name = template.steps[position].name.as_str();
        let parents = &template.graph.parents[position];
        let choices = || {
            let decisions = parents.iter().map(|&parent| &template.steps[parent]);
            let decisions = decisions.filter(|step| step.kind == StepKind::Decision);
            decisions.map(|step| facts.choices.get(step.name.as_str()).filter(|&c| seen(c)))
        };
        let fates = || parents.iter().map(|&parent| self[parent]);
        let passed_over = |choice: Option<&Choice>| choice.is_some_and(|c| !c.steps.contains(name));
        let failed_decision = |&parent: &usize| {
            template.steps[parent].kind == StepKind::Decision && self[parent] == Fate::Failed
        };
        let exists = |fate| matches!(fate, Fate::Live | Fate::Done | Fate::Failed | Fate::Created);
        if fates().any(|fate| fate == Fate::Never) || choices().any(passed_over) {
            Fate::Never
        } else if fates().any(|fate| fate == Fate::Lost) || parents.iter().any(failed_decision) {
            Fate::Lost
        } else if fates().all(exists) && choices().all(|choice| choice.is_some()) {
            Fate::Created
        } else {
            Fate::Open
        }
    }
}

pub(crate) fn is_worker(template: &Template, position: usize) -> bool {
    template.steps[position].kind == StepKind::BatchWorker
}
