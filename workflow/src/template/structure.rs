//! Rules between steps: names, dependencies, batches.

use std::collections::{HashMap, HashSet};

use tasker_messages::{Problem, StepKind, code};

use super::cycle;
use super::draft::{Draft, DraftBatch};
use super::problems::{Problems, shown};
use super::yaml::join;

/// Most steps of a cycle that are named.
const MAX_SHOWN: usize = 20;

/// Checks the steps against each other and moves each batch configuration to its batchable step.
///
/// Later rules are checked only where the earlier ones hold: they would report the consequences of
/// what was reported already.
pub(super) fn check(mut drafts: Vec<Draft>, problems: &Problems) -> Vec<Draft> {
    let mut check = Check { problems, sound: true };
    let by_name = check.names(&drafts);
    let parents = check.dependencies(&drafts, &by_name);
    check.cycles(&drafts, &parents);
    check.convergences(&drafts);
    check.batch_configs(&drafts);
    let complete = |d: &Draft| d.kind.is_some() && d.name.is_some() && !d.gaps;
    if check.sound && drafts.iter().all(complete) {
        check.workers(&drafts, &parents);
        check.decisions(&drafts, &parents);
        let batches = check.batchables(&drafts, &parents);
        check.member_names(&drafts);
        if check.sound {
            check.move_configs(&mut drafts, &batches);
        }
    }
    drafts
}

struct Check<'p> {
    problems: &'p Problems,
    /// Whether names, dependencies and the graph are without a problem so far.
    sound: bool,
}

impl Check<'_> {
    fn report(&mut self, code: &str, path: &str, line: u32, message: impl Into<String>) {
        self.sound = false;
        self.problems.push(Problem::new(code, message).at(path).on_line(Some(line)));
    }

    fn names<'d>(&mut self, drafts: &'d [Draft]) -> HashMap<&'d str, usize> {
        let mut by_name = HashMap::new();
        let mut folded: HashMap<String, &str> = HashMap::new();
        for (n, draft) in drafts.iter().enumerate() {
            let Some(name) = &draft.name else { continue };
            // Twins that differ only in case would be one file or one row somewhere.
            if let Some(twin) = folded.insert(name.text.to_ascii_lowercase(), &name.text) {
                let message = if twin == name.text {
                    format!("a second step {}; names are unique", shown(&name.text))
                } else {
                    format!("{} differs from {twin:?} only in case; rename one", shown(&name.text))
                };
                self.report(code::DUPLICATE_STEP, &join(&draft.path, "name"), name.line, message);
            }
            by_name.entry(name.text.as_str()).or_insert(n);
        }
        by_name
    }

    /// The parents of each step as indices.
    fn dependencies(
        &mut self,
        drafts: &[Draft],
        by_name: &HashMap<&str, usize>,
    ) -> Vec<Vec<usize>> {
        let mut parents = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let mut known = Vec::with_capacity(draft.dependencies.len());
            for dependency in &draft.dependencies {
                if let Some(&parent) = by_name.get(dependency.text.as_str()) {
                    known.push(parent);
                    continue;
                }
                let names = drafts.iter().filter_map(Draft::name_text);
                let near = self.problems.suggestion(&dependency.text, names);
                let message = format!("no step is named {}{near}", shown(&dependency.text));
                self.report(code::UNKNOWN_DEPENDENCY, &dependency.path, dependency.line, message);
            }
            parents.push(known);
        }
        parents
    }

    fn cycles(&mut self, drafts: &[Draft], parents: &[Vec<usize>]) {
        for cycle in cycle::find(parents) {
            let name = |&n: &usize| join("", drafts[n].name_text().unwrap_or_default());
            let mut names: Vec<String> = cycle.iter().take(MAX_SHOWN).map(name).collect();
            if cycle.len() > MAX_SHOWN {
                names.push(format!("{} more", cycle.len() - MAX_SHOWN));
            }
            names.extend(names.first().cloned());
            let message = format!(
                "these steps wait for each other, each for the next: {}",
                names.join(" -> ")
            );
            let (path, line) = &drafts[cycle[0]].dependencies_field;
            self.report(code::DEPENDENCY_CYCLE, path, *line, message);
        }
    }

    fn convergences(&mut self, drafts: &[Draft]) {
        for draft in drafts {
            let nothing = draft.dependencies.is_empty() && !draft.gaps;
            if draft.kind == Some(StepKind::DeferredConvergence) && nothing {
                let message = "a deferred_convergence must name the steps that it converges";
                let (path, line) = &draft.dependencies_field;
                self.report(code::EMPTY_CONVERGENCE, path, *line, message);
            }
        }
    }

    fn batch_configs(&mut self, drafts: &[Draft]) {
        for draft in drafts {
            let (Some(batch), Some(kind)) = (&draft.batch, draft.kind) else { continue };
            if !matches!(kind, StepKind::Batchable | StepKind::BatchWorker) {
                let message = format!("a step of type {kind} has no batch_config; remove it");
                self.report(code::BATCH_STRUCTURE, &batch.path, batch.line, message);
            }
        }
    }

    /// A worker hangs on exactly one batchable step, and only convergences hang on a worker.
    fn workers(&mut self, drafts: &[Draft], parents: &[Vec<usize>]) {
        for (n, draft) in drafts.iter().enumerate() {
            let (path, line) = &draft.dependencies_field;
            if draft.kind == Some(StepKind::BatchWorker) {
                let batchable =
                    parents[n].iter().filter(|&&p| drafts[p].kind == Some(StepKind::Batchable));
                if batchable.count() != 1 || parents[n].len() != 1 {
                    let message = "a batch_worker depends on exactly one step, of type batchable";
                    self.report(code::BATCH_STRUCTURE, path, *line, message);
                }
                continue;
            }
            if draft.kind == Some(StepKind::DeferredConvergence) {
                continue;
            }
            for (dependency, &parent) in draft.dependencies.iter().zip(&parents[n]) {
                if drafts[parent].kind == Some(StepKind::BatchWorker) {
                    let message = format!(
                        "only a deferred_convergence can depend on the batch_worker {}",
                        shown(&dependency.text)
                    );
                    self.report(code::BATCH_STRUCTURE, &dependency.path, dependency.line, message);
                }
            }
        }
    }

    /// A decision creates steps that depend on it. Workers come with their batch and convergences
    /// when all that they declare has ended, so neither is a branch.
    fn decisions(&mut self, drafts: &[Draft], parents: &[Vec<usize>]) {
        let mut branches = vec![false; drafts.len()];
        for (n, draft) in drafts.iter().enumerate() {
            if !matches!(draft.kind, Some(StepKind::BatchWorker | StepKind::DeferredConvergence)) {
                parents[n].iter().for_each(|&parent| branches[parent] = true);
            }
        }
        for (draft, has_branches) in drafts.iter().zip(branches) {
            if draft.kind == Some(StepKind::Decision) && !has_branches {
                let message = "no step that a decision can create (standard, decision, batchable) \
                               depends on it; add one, or make it a standard step";
                self.report(code::DECISION_STRUCTURE, &draft.path, draft.line, message);
            }
        }
    }

    /// Each batchable step has exactly one worker. Answers with the pairs.
    fn batchables(&mut self, drafts: &[Draft], parents: &[Vec<usize>]) -> Vec<(usize, usize)> {
        let mut workers: HashMap<usize, Vec<usize>> = HashMap::new();
        for (n, draft) in drafts.iter().enumerate() {
            if draft.kind == Some(StepKind::BatchWorker) {
                parents[n].iter().for_each(|&parent| workers.entry(parent).or_default().push(n));
            }
        }
        let mut pairs = Vec::new();
        for (n, draft) in drafts.iter().enumerate() {
            if draft.kind != Some(StepKind::Batchable) {
                continue;
            }
            match workers.get(&n).map_or(&[][..], Vec::as_slice) {
                [worker] => pairs.push((n, *worker)),
                [] => {
                    let message = "a batchable step needs a batch_worker that depends on it";
                    self.report(code::BATCH_STRUCTURE, &draft.path, draft.line, message);
                }
                [_, second, ..] => {
                    let message =
                        "a batchable step can have only one batch_worker; this is another";
                    let (path, line) = &drafts[*second].dependencies_field;
                    self.report(code::BATCH_STRUCTURE, path, *line, message);
                }
            }
        }
        self.worker_templates(drafts, &pairs);
        pairs
    }

    /// `worker_template` says nothing that the dependencies do not say; so it must agree with them.
    fn worker_templates(&mut self, drafts: &[Draft], pairs: &[(usize, usize)]) {
        for &(batchable, worker) in pairs {
            let Some(expected) = drafts[worker].name_text() else { continue };
            for batch in [&drafts[batchable].batch, &drafts[worker].batch].into_iter().flatten() {
                let Some(named) = &batch.config.worker_template else { continue };
                if named.as_str() != expected {
                    let message = format!(
                        "the batch_worker that depends on this step is `{expected}`, not `{named}`"
                    );
                    let path = join(&batch.path, "worker_template");
                    self.report(code::BATCH_STRUCTURE, &path, batch.worker_line, message);
                }
            }
        }
    }

    /// Members are named `<worker>_<batch_id>`; made identifiers are numbers of three digits or
    /// more. No step may have such a name.
    fn member_names(&mut self, drafts: &[Draft]) {
        let workers: HashSet<&str> = drafts
            .iter()
            .filter(|draft| draft.kind == Some(StepKind::BatchWorker))
            .filter_map(Draft::name_text)
            .collect();
        for draft in drafts {
            let Some(name) = &draft.name else { continue };
            let Some((worker, id)) = name.text.rsplit_once('_') else { continue };
            let is_id = id.len() >= 3 && id.bytes().all(|b| b.is_ascii_digit());
            if is_id && workers.contains(worker) {
                let message =
                    format!("this is the name of a member of `{worker}`; rename the step");
                self.report(code::DUPLICATE_STEP, &join(&draft.path, "name"), name.line, message);
            }
        }
    }

    /// A configuration written at the worker belongs to the batchable step.
    fn move_configs(&mut self, drafts: &mut [Draft], pairs: &[(usize, usize)]) {
        for &(batchable, worker) in pairs {
            let Some(DraftBatch { path, line, worker_line, config }) = drafts[worker].batch.take()
            else {
                continue;
            };
            if drafts[batchable].batch.is_some() {
                let message = "its batchable step has a batch_config too; keep one of them";
                self.report(code::CONFLICTING_KEYS, &path, line, message);
                continue;
            }
            drafts[batchable].batch = Some(DraftBatch { path, line, worker_line, config });
        }
    }
}
