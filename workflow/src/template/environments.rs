//! `environments`: what steps are given otherwise in one environment than in the others.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};
use tasker_messages::{StepName, code};

use super::draft::Draft;
use super::problems::shown;
use super::read_retry::{RetryKeys, bounds_problem, retry_keys};
use super::read_step::{initialization, timeout_ms};
use super::section::Section;
use super::yaml::join;

/// Stands for every step.
const ALL: &str = "ALL";
/// Most environments of a template: each is checked against every step.
const MAX_ENVIRONMENTS: usize = 100;

/// What one environment says about a step, or about all of them.
#[derive(Debug, Default)]
pub(super) struct Override {
    /// `None` is every step.
    step: Option<usize>,
    config: Value,
    timeout_ms: Option<u64>,
    retry: RetryKeys,
    /// Where its retries stand.
    place: (String, u32),
}

/// Reads and checks every environment, whichever is the one that counts.
pub(super) fn read(section: &mut Section<'_>, drafts: &[Draft]) -> BTreeMap<String, Vec<Override>> {
    let mut all = BTreeMap::new();
    let Some(mut environments) = section.section("environments") else { return all };
    let entries = environments.take_all();
    if entries.len() > MAX_ENVIRONMENTS {
        let (path, line) = (&environments.path, environments.line);
        let message = format!("{} environments; the limit is {MAX_ENVIRONMENTS}", entries.len());
        environments.report(code::TOO_LARGE, path, line, message);
        return all;
    }
    let steps = Steps::new(drafts);
    for (name, field) in entries {
        if let Err(error) = StepName::new(&name) {
            let line = field.key_line;
            environments.report(code::INVALID_NAME, &field.path, line, error.to_string());
        }
        let Some(mut section) = Section::open(field.path, field.node, environments.problems())
        else {
            continue;
        };
        let overrides = read_overrides(&mut section, &steps);
        check_bounds(&section, drafts, &overrides);
        section.finish();
        all.insert(name, overrides);
    }
    all
}

/// The steps that can be overridden, by name.
struct Steps<'d> {
    drafts: &'d [Draft],
    by_name: HashMap<&'d str, usize>,
}

impl<'d> Steps<'d> {
    fn new(drafts: &'d [Draft]) -> Self {
        let names = drafts.iter().enumerate().rev();
        // Of two steps with one name, which is reported elsewhere, the first is meant.
        let by_name = names.filter_map(|(n, draft)| Some((draft.name_text()?, n))).collect();
        Self { drafts, by_name }
    }
}

fn read_overrides(section: &mut Section<'_>, steps: &Steps<'_>) -> Vec<Override> {
    let Some(field) = section.take("steps") else { return Vec::new() };
    let items = section.list(field).unwrap_or_default();
    let mut seen = HashSet::new();
    let mut overrides = Vec::with_capacity(items.len());
    for (path, node) in items {
        let Some(mut item) = Section::open(path, node, section.problems()) else { continue };
        let step = target(&mut item, steps, &mut seen);
        let config = item.section("handler").map_or(Value::Null, |mut handler| {
            let config = initialization(&mut handler);
            handler.finish();
            config
        });
        let timeout_ms = timeout_ms(&mut item);
        let retry = item.section("retry").map(|section| {
            let place = (join(&section.path, "max_backoff_ms"), section.line);
            (retry_keys(section), place)
        });
        let (retry, place) = retry.unwrap_or_default();
        item.finish();
        if let Some(step) = step {
            overrides.push(Override { step, config, timeout_ms, retry, place });
        }
    }
    // What is said about a step comes after what is said about all.
    overrides.sort_by_key(|o| o.step.is_some());
    overrides
}

/// Which step is meant; the outer `None` if that cannot be told, which was reported.
fn target(
    item: &mut Section<'_>,
    steps: &Steps<'_>,
    seen: &mut HashSet<String>,
) -> Option<Option<usize>> {
    let (name, field) = item.required_text("name")?;
    let report = |code, message: String| item.report(code, &field.path, field.node.line, message);
    if !seen.insert(name.clone()) {
        let message = format!("{} is overridden twice here; keep one", shown(&name));
        report(code::DUPLICATE_STEP, message);
        return None;
    }
    match (name == ALL, steps.by_name.get(name.as_str()).copied()) {
        (true, None) => Some(None),
        (true, Some(_)) => {
            let message = "stands for every step here, but a step has this name; rename that one";
            report(code::INVALID_NAME, message.to_owned());
            None
        }
        (false, Some(step)) => Some(Some(step)),
        (false, None) => {
            let names = steps.drafts.iter().filter_map(Draft::name_text).chain([ALL]);
            let near = item.problems().suggestion(&name, names);
            report(code::INVALID_VALUE, format!("no step is named {}{near}", shown(&name)));
            None
        }
    }
}

/// The bounds of a step's pauses must agree where one is the template's and one the environment's.
fn check_bounds(section: &Section<'_>, drafts: &[Draft], overrides: &[Override]) {
    let mut reported = HashSet::new();
    // One for all steps, and one for each step, at most.
    let by_step: HashMap<Option<usize>, &Override> =
        overrides.iter().map(|o| (o.step, o)).collect();
    for (n, draft) in drafts.iter().enumerate() {
        let layers = || [None, Some(n)].into_iter().filter_map(|step| by_step.get(&step).copied());
        let retry = layers().fold(draft.retry.clone(), |below, o| o.retry.clone().over(&below));
        let Some(message) = bounds_problem(&retry) else { continue };
        let culprit =
            layers().rfind(|o| o.retry.says_bounds() && bounds_problem(&o.retry).is_none());
        if let Some(culprit) = culprit.filter(|_| bounds_problem(&draft.retry).is_none())
            && reported.insert(&culprit.place.0)
        {
            let name = draft
                .name_text()
                .map_or(String::new(), |name| format!(" for step {}", shown(name)));
            let (path, line) = &culprit.place;
            section.report(code::INVALID_VALUE, path, *line, format!("{message}{name}"));
        }
    }
}

/// Lays an environment over the steps.
pub(super) fn apply(drafts: &mut [Draft], overrides: Vec<Override>) {
    for o in overrides {
        let steps = o.step.map_or(0..drafts.len(), |step| step..step + 1);
        for draft in &mut drafts[steps] {
            if let Some(handler) = &mut draft.handler {
                merge(&mut handler.config, o.config.clone());
            }
            draft.timeout_ms = o.timeout_ms.or(draft.timeout_ms);
            draft.retry = o.retry.clone().over(&draft.retry);
        }
    }
}

/// Objects key by key, everything else as a whole.
fn merge(below: &mut Value, over: Value) {
    match (below, over) {
        (_, Value::Null) => {}
        (Value::Object(below), Value::Object(over)) => merge_keys(below, over),
        (below, over) => *below = over,
    }
}

fn merge_keys(below: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match below.get_mut(&key) {
            Some(Value::Object(inner)) if value.is_object() => {
                if let Value::Object(over) = value {
                    merge_keys(inner, over);
                }
            }
            // Here nothing is a value like any other.
            _ => drop(below.insert(key, value)),
        }
    }
}
