//! Random walks through larger scenarios: more workers, more steps, more faults on a path. Each ends
//! without faults, and must end. `TASKER_MODEL_SEED` and `TASKER_MODEL_SECONDS` say where to begin and
//! for how long.

use std::env;
use std::time::{Duration, Instant};

use crate::action::{Action, Priced};
use crate::checks::check;
use crate::scenario::{Budget, Fault, Scenario};
use crate::search::Flaw;
use crate::watch::Watch;
use crate::world::{Names, State};

const SEED: u64 = 20_260_101;
const SECONDS: f64 = 5.0;
/// Steps of a walk with faults, and without them at the most.
const RESTLESS: u32 = 400;
const CALM: u32 = 50_000;
/// Of how many actions one is a fault, where both can happen.
const RARITY: u64 = 8;

/// After so many walks all of these paths have been taken.
const ENOUGH: u64 = 2_000;
const PATHS: &[&str] = &[
    "batch converged",
    "batch failed",
    "batch taken over",
    "bus restarted",
    "claim: held",
    "claim: poison",
    "claim: dropped, superseded",
    "in doubt: was committed",
    "late request",
    "members cancelled",
    "publish: a bundle",
    "publish: late",
    "release: sent again meanwhile",
    "release: unstarted",
    "report: stale, sent again",
    "retry scheduled, not charged",
    "run without an outcome",
    "step handed over",
    "store lost",
    "task blocked by failures",
    "task error",
];

/// SplitMix64 (Steele et al., 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn flips(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// A template, its batches, and what its decisions can choose.
type Shape = (&'static [&'static str], &'static [&'static str], &'static [&'static [&'static str]]);

const SHAPES: &[Shape] = &[
    (&["split b", "work w split", "join j work", "last - join"], &["work"], &[]),
    (&["a -", "b - a", "c - a", "d - b c", "e - d", "f - d", "g - e f a"], &[], &[]),
    (
        &["a -", "pick d a", "x - pick", "y - pick", "j j x y a", "z - j"],
        &[],
        &[&[], &["x"], &["y"], &["x", "y"]],
    ),
    (
        &[
            "a -",
            "one b a",
            "work w one",
            "two b",
            "more w two",
            "join j work more",
            "pick d join",
            "x - pick",
            "y - pick a",
            "all j x y",
            "z - all join",
        ],
        &["work", "more"],
        &[&[], &["x"], &["y"], &["x", "y"]],
    ),
];

fn scenario(random: &mut Random) -> Scenario {
    let (steps, batches, choices) = SHAPES[random.below(SHAPES.len() as u64) as usize];
    let members: Vec<(&str, u8)> =
        batches.iter().map(|&worker| (worker, 1 + random.below(5) as u8)).collect();
    let max_attempts = 1 + random.below(4) as u8;
    let scenario = Scenario::new("walk", steps, &members, max_attempts);
    let mut kinds: Vec<(Fault, u8)> =
        Fault::ALL.iter().map(|&fault| (fault, random.below(4) as u8)).collect();
    if random.below(4) > 0 {
        kinds.retain(|(fault, _)| *fault != Fault::Cancel);
    }
    Scenario {
        choices: choices.iter().map(|choice| choice.to_vec()).collect(),
        workers: 2 + random.below(2) as usize,
        nodes: 2,
        slots: 1 + random.below(3) as usize,
        bundles: 1 + random.below(3) as u8,
        hand_over: random.flips(),
        split_apply: random.flips(),
        waits_for_slot: random.flips(),
        instant: false,
        budget: Budget::new(random.below(13) as u8, &kinds),
        ..scenario
    }
}

/// One walk: how many steps it took, or what is wrong.
fn walk(seed: u64, watch: &mut Watch) -> Result<usize, Flaw> {
    let mut random = Random(seed);
    let scenario = scenario(&mut random);
    let mut state = State::first(&scenario);
    let mut way = Vec::new();
    for step in 0..RESTLESS + CALM {
        if step == RESTLESS {
            state.budget = Budget::default();
        }
        if step >= RESTLESS && state.is_quiet() {
            return Ok(way.len());
        }
        let actions = state.actions(&scenario);
        let Some((action, fault)) = choose(&mut random, &actions) else {
            if step < RESTLESS {
                continue;
            }
            watch.broken("nothing can happen, and the task has not ended");
            break;
        };
        let before = state.rows.clone();
        state.apply(&scenario, action, fault, watch);
        way.push((action, fault));
        if state.rows != before {
            check(&scenario, &before, &state.rows, watch);
        }
        if watch.broken.is_some() {
            break;
        }
    }
    let rule = watch.broken.take().unwrap_or_else(|| "the task does not end".to_owned());
    Err(Flaw { rule, trace: trace(&scenario, &way) })
}

fn choose(random: &mut Random, actions: &[Priced]) -> Option<Priced> {
    let wants_fault = random.below(RARITY) == 0;
    let (faults, calm): (Vec<&Priced>, Vec<&Priced>) =
        actions.iter().partition(|(_, fault)| fault.is_some());
    let list = if calm.is_empty() || wants_fault && !faults.is_empty() { faults } else { calm };
    if list.is_empty() {
        return None;
    }
    Some(*list[random.below(list.len() as u64) as usize])
}

fn trace(scenario: &Scenario, way: &[(Action, Option<Fault>)]) -> Vec<String> {
    let mut state = State::first(scenario);
    let names = Names::same(scenario);
    let mut lines = vec![format!(
        "steps {:?}, {} workers with {} slots",
        scenario.template.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(),
        scenario.workers,
        scenario.slots
    )];
    for (n, &(action, fault)) in way.iter().enumerate() {
        if n + 1 < way.len() && n as u32 == RESTLESS {
            state.budget = Budget::default();
        }
        let cost = fault.map_or(String::new(), |fault| format!("  [{fault:?}]"));
        lines.push(format!("{:>3}. {}{cost}", n + 1, action.line(scenario, &state, &names)));
        state.apply(scenario, action, fault, &mut Watch::default());
    }
    lines
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let read =
        |text: String| text.parse().unwrap_or_else(|_| panic!("{name}: not a number: {text}"));
    env::var(name).map_or(default, read)
}

#[test]
fn walks_end() {
    let first: u64 = setting("TASKER_MODEL_SEED", SEED);
    let time = Duration::from_secs_f64(setting("TASKER_MODEL_SECONDS", SECONDS));
    let started = Instant::now();
    let (mut walks, mut steps) = (0_u64, 0);
    let mut watch = Watch::default();
    while started.elapsed() < time {
        let seed = first.wrapping_add(walks);
        match walk(seed, &mut watch) {
            Ok(taken) => steps += taken,
            Err(flaw) => panic!("TASKER_MODEL_SEED={seed}: {}", flaw.text()),
        }
        walks += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{walks} walks from seed {first}, {steps} steps, {seconds:.1} s: {:?}", watch.reached);
    let missing: Vec<&&str> = PATHS.iter().filter(|p| !watch.reached.contains_key(*p)).collect();
    assert!(walks < ENOUGH || missing.is_empty(), "never came by {missing:?}");
}
