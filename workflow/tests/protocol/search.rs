//! Breadth first through all states of a scenario, and back from where nothing is left to do.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use crate::action::Action;
use crate::checks::check;
use crate::fingerprint::Fingerprint;
use crate::scenario::{Fault, Scenario};
use crate::watch::Watch;
use crate::world::{Names, State};

/// What a search has found.
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    pub(crate) depth: usize,
    pub(crate) took: Duration,
    pub(crate) reached: BTreeMap<&'static str, u64>,
    /// A rule that is broken, or a state from which the end cannot be reached, with the way there.
    pub(crate) flaw: Option<Flaw>,
}

/// What is wrong, and the shortest way there.
pub(crate) struct Flaw {
    pub(crate) rule: String,
    pub(crate) trace: Vec<String>,
}

/// The key is a fingerprint already.
#[derive(Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }
}

struct Search<'a> {
    scenario: &'a Scenario,
    watch: Watch,
    numbers: HashMap<u128, u32, BuildHasherDefault<Taken>>,
    /// By number: the state before it, and what led from there.
    origins: Vec<(u32, Action, Option<Fault>)>,
    quiet: Vec<u32>,
    /// Transitions without a fault, backwards: to and from.
    calm: Vec<(u32, u32)>,
    transitions: usize,
}

/// Searches a scenario. It must end within `most` states.
pub(crate) fn explore(scenario: &Scenario, most: usize) -> Found {
    let started = Instant::now();
    let mut search = Search {
        scenario,
        watch: Watch::default(),
        numbers: HashMap::default(),
        origins: Vec::new(),
        quiet: Vec::new(),
        calm: Vec::new(),
        transitions: 0,
    };
    let (depth, mut flaw) = search.forward(most);
    if flaw.is_none() {
        flaw = search.backward();
    }
    Found {
        states: search.numbers.len(),
        transitions: search.transitions,
        depth,
        took: started.elapsed(),
        reached: search.watch.reached,
        flaw,
    }
}

impl Search<'_> {
    fn forward(&mut self, most: usize) -> (usize, Option<Flaw>) {
        let mut first = State::first(self.scenario);
        first.rename();
        self.numbers.insert(Fingerprint::of(&first), 0);
        self.origins.push((0, Action::CancelMembers, None));
        let mut layer = vec![(first, 0)];
        let mut depth = 0;
        while !layer.is_empty() {
            let mut next = Vec::with_capacity(layer.len() * 2);
            for (state, number) in layer {
                if let Some(flaw) = self.expand(&state, number, &mut next) {
                    return (depth, Some(flaw));
                }
            }
            if self.numbers.len() > most {
                let last = self.origins.len() as u32 - 1;
                let way = self.trace(last, None).join("\n");
                panic!("{}: more than {most} states, as far as\n{way}", self.scenario.name);
            }
            layer = next;
            depth += 1;
        }
        (depth - 1, None)
    }

    fn expand(&mut self, state: &State, number: u32, next: &mut Vec<(State, u32)>) -> Option<Flaw> {
        if state.is_quiet() {
            self.quiet.push(number);
        }
        for (action, fault) in state.ample_actions(self.scenario) {
            let mut after = state.clone();
            after.apply(self.scenario, action, fault, &mut self.watch);
            if after.rows != state.rows {
                check(self.scenario, &state.rows, &after.rows, &mut self.watch);
            }
            if let Some(rule) = self.watch.broken.take() {
                let trace = self.trace(number, Some((action, fault)));
                return Some(Flaw { rule, trace });
            }
            after.rename();
            self.transitions += 1;
            let print = Fingerprint::of(&after);
            let fresh = self.numbers.len() as u32;
            let to = *self.numbers.entry(print).or_insert(fresh);
            if to == fresh {
                self.origins.push((number, action, fault));
                next.push((after, to));
            }
            if fault.is_none() && to != number {
                self.calm.push((to, number));
            }
        }
        None
    }

    /// From where nothing is left to do, back along everything that is no fault. A state that is not
    /// come by has no way to the end.
    fn backward(&mut self) -> Option<Flaw> {
        let count = self.origins.len();
        let mut starts = vec![0_u32; count + 1];
        self.calm.iter().for_each(|&(to, _)| starts[to as usize + 1] += 1);
        (0..count).for_each(|n| starts[n + 1] += starts[n]);
        let mut places = starts.clone();
        let mut froms = vec![0_u32; self.calm.len()];
        for &(to, from) in &self.calm {
            froms[places[to as usize] as usize] = from;
            places[to as usize] += 1;
        }
        let mut seen = vec![false; count];
        let mut open = std::mem::take(&mut self.quiet);
        open.iter().for_each(|&n| seen[n as usize] = true);
        while let Some(n) = open.pop() {
            for &from in &froms[starts[n as usize] as usize..starts[n as usize + 1] as usize] {
                if !std::mem::replace(&mut seen[from as usize], true) {
                    open.push(from);
                }
            }
        }
        // Numbers rise with the depth, so this is one of the nearest.
        let stuck = seen.iter().position(|seen| !seen)? as u32;
        let rule = "the end cannot be reached any more".to_owned();
        Some(Flaw { rule, trace: self.trace(stuck, None) })
    }

    /// The way to a state, and what is done there.
    fn trace(&self, number: u32, last: Option<(Action, Option<Fault>)>) -> Vec<String> {
        let mut way = Vec::new();
        let mut at = number;
        while at != 0 {
            let (from, action, fault) = self.origins[at as usize];
            way.push((action, fault));
            at = from;
        }
        way.reverse();
        way.extend(last);
        let mut state = State::first(self.scenario);
        let mut names = Names::same(self.scenario).after(&state.rename());
        let mut lines = Vec::new();
        for (action, fault) in way {
            let line = action.line(self.scenario, &state, &names);
            let cost = fault.map_or(String::new(), |fault| format!("  [{fault:?}]"));
            lines.push(format!("{:>3}. {line}{cost}", lines.len() + 1));
            state.apply(self.scenario, action, fault, &mut Watch::default());
            names = names.after(&state.rename());
        }
        lines
    }
}

impl Flaw {
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}", self.rule, self.trace.join("\n"))
    }
}
