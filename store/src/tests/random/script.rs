//! Random templates, and what their handlers will do.

use std::collections::HashSet;
use std::fmt::Write;

use tasker_messages::StepKind;
use tasker_workflow::Template;
use tasker_workflow::model::{BatchScript, Script};

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled",
/// ACM TOMS 42 (2016).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n.max(1)
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A template that may or may not be valid.
fn source(random: &mut Random, seed: u64) -> String {
    let mut text = format!("name: numbers\nnamespace_name: tests\nversion: 0.0.{seed}\nsteps:\n");
    // Name, whether a worker, whether it may be a parent of ordinary steps.
    let mut names: Vec<(String, bool)> = Vec::new();
    for n in 0..2 + random.below(8) {
        let kind = ["standard", "standard", "batchable", "decision", "deferred_convergence"]
            [random.below(5)];
        let join = kind == "deferred_convergence";
        let mut parents: Vec<&str> = Vec::new();
        for (name, is_worker) in &names {
            if (join || !is_worker) && random.one_in(if *is_worker { 2 } else { 3 }) {
                parents.push(name);
            }
        }
        let name = format!("s{n}");
        let _infallible = writeln!(
            text,
            "  - {{name: {name}, type: {kind}, dependencies: [{}], handler: {{callable: t}}, \
             retry: {{max_attempts: 2, backoff: none, backoff_base_ms: 0, jitter: false}}}}",
            parents.join(", ")
        );
        if kind == "batchable" {
            let _infallible = writeln!(
                text,
                "  - {{name: w{n}, type: batch_worker, dependencies: [{name}], \
                 handler: {{callable: t}}, \
                 retry: {{max_attempts: 2, backoff: none, backoff_base_ms: 0, jitter: false}}}}"
            );
            names.push((format!("w{n}"), true));
        }
        names.push((name, false));
    }
    text
}

pub(super) fn valid_source(random: &mut Random, seed: u64) -> (String, Template) {
    loop {
        let text = source(random, seed);
        if let Ok(template) = Template::parse(text.as_bytes()) {
            return (text, template);
        }
    }
}

pub(super) fn script(random: &mut Random, template: &Template) -> Script {
    let mut script = Script::default();
    for step in &template.steps {
        let name = step.name.to_string();
        match step.kind {
            StepKind::BatchWorker => {
                let members = 1 + random.below(5) as u32;
                let failing = match random.below(4) {
                    0 => random.below(members as usize + 1) as u32,
                    _ => 0,
                };
                let budget = match random.one_in(2) {
                    true => random.below(members as usize + 1) as u32,
                    false => members,
                };
                script.batches.insert(name, BatchScript { members, failing, budget });
                continue;
            }
            StepKind::Decision => {
                script.choices.insert(name.clone(), choice(random, template, &name));
            }
            _ => {}
        }
        if random.one_in(6) {
            script.failing.insert(name);
        }
    }
    script
}

/// A random choice that the rules accept.
fn choice(random: &mut Random, template: &Template, decision: &str) -> HashSet<String> {
    let Some((_, step)) = template.step(decision) else { return HashSet::new() };
    for _ in 0..10 {
        let names: HashSet<String> = template
            .steps
            .iter()
            .filter(|s| s.dependencies.iter().any(|d| d.as_str() == decision))
            .filter(|s| {
                matches!(s.kind, StepKind::Standard | StepKind::Batchable | StepKind::Decision)
            })
            .filter(|_| random.one_in(2))
            .map(|s| s.name.to_string())
            .collect();
        if tasker_workflow::choose(template, step, &decided(&names)).is_ok() {
            return names;
        }
    }
    HashSet::new()
}

pub(in crate::tests) fn decided(names: &HashSet<String>) -> String {
    let outcome = match names.is_empty() {
        true => serde_json::json!({"type": "no_branches"}),
        false => serde_json::json!({"type": "create_steps", "step_names": names}),
    };
    serde_json::json!({"decision_point_outcome": outcome}).to_string()
}
