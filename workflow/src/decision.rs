//! From a decision's result to the steps that it creates.

use std::collections::HashSet;

use serde_json::{Map, Value};
use tasker_messages::json::{self, Limits};
use tasker_messages::{Problem, StepFailure, StepKind, StepName, code, nearest};

use crate::stray::stray_key;
use crate::template::{StepTemplate, Template};

const KEY: &str = "decision_point_outcome";
const ERROR_TYPE: &str = "decision_outcome";

/// What an outcome must look like, for those who write one.
const SHAPE: &str =
    "write {\"type\":\"no_branches\"} or {\"type\":\"create_steps\",\"step_names\":[…]}";

/// Judges the result of a decision: the JSON text of the handler's result.
///
/// The answer are the steps that the decision creates, none for `no_branches`.
///
/// # Errors
/// What is wrong with the outcome, as a permanent failure of the step.
#[expect(
    clippy::result_large_err,
    reason = "once per decision, and the failure is stored as it is"
)]
pub fn choose(
    template: &Template,
    decision: &StepTemplate,
    result: &str,
) -> Result<Vec<StepName>, StepFailure> {
    let chosen = read(result).and_then(|names| match names {
        None => Ok(Vec::new()),
        Some(names) => Branches::of(template, decision).check(&names),
    });
    chosen.map_err(|problem| StepFailure {
        code: problem.code,
        message: format!("{}: {}", problem.field, problem.message),
        retryable: false,
        error_type: ERROR_TYPE.to_owned(),
        retry_after_ms: None,
        context: Value::Null,
    })
}

/// The steps that a stored outcome names; it was judged before it was stored. A step resolved by
/// hand without an outcome creates nothing.
pub fn stored_choice(outcome: Option<&str>) -> HashSet<String> {
    let outcome: Option<Value> = outcome.and_then(|text| serde_json::from_str(text).ok());
    let names = outcome.as_ref().and_then(|outcome| outcome["step_names"].as_array());
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

/// Reads the outcome; `None` is `no_branches`.
fn read(result: &str) -> Result<Option<Vec<String>>, Problem> {
    let mut keys = outcome_keys(result)?;
    if keys.contains_key("outcome_type") || keys.keys().any(|key| is_old_variant(key)) {
        return Err(old_shape());
    }
    let kind = match keys.remove("type") {
        Some(Value::String(kind)) if is_old_variant(&kind) => return Err(old_shape()),
        Some(Value::String(kind)) if matches!(&*kind, "no_branches" | "create_steps") => kind,
        Some(other) => {
            let message = format!("{} is no outcome; {SHAPE}", short(&other.to_string()));
            return Err(invalid("type", &message));
        }
        None => return Err(invalid("type", &format!("is missing; {SHAPE}"))),
    };
    let (own, other) = match &*kind {
        "no_branches" => ("reason", "step_names"),
        _ => ("step_names", "reason"),
    };
    if let Some(message) = stray_key(&keys, &kind, &["type", own], &[other]) {
        return Err(invalid("", &message));
    }
    if kind == "create_steps" {
        return step_names(&mut keys).map(Some);
    }
    match keys.remove("reason") {
        None | Some(Value::Null | Value::String(_)) => Ok(None),
        Some(_) => Err(invalid("reason", "must be a text")),
    }
}

fn outcome_keys(result: &str) -> Result<Map<String, Value>, Problem> {
    let result = match json::parse(result.as_bytes(), Limits::bytes(usize::MAX)) {
        Ok(Value::Object(mut result)) => result.remove(KEY),
        Ok(_) => {
            let message = format!("the result of a decision must be an object with `{KEY}`");
            return Err(invalid("", &message));
        }
        Err(problem) => return Err(invalid("", &problem.message)),
    };
    match result {
        Some(Value::Object(keys)) => Ok(keys),
        Some(Value::String(name)) if is_old_variant(&name) => Err(old_shape()),
        Some(_) => Err(invalid("", &format!("must be an object; {SHAPE}"))),
        None => Err(invalid("", &format!("is missing from the result; {SHAPE}"))),
    }
}

fn step_names(keys: &mut Map<String, Value>) -> Result<Vec<String>, Problem> {
    let items = match keys.remove("step_names") {
        Some(Value::Array(items)) => items,
        Some(_) => return Err(invalid("step_names", "must be a list of steps")),
        None => return Err(invalid("step_names", "is missing")),
    };
    if items.is_empty() {
        return Err(invalid("step_names", "names no step; return {\"type\":\"no_branches\"}"));
    }
    let mut names = Vec::with_capacity(items.len());
    let mut seen = HashSet::new();
    for (n, item) in items.into_iter().enumerate() {
        let field = format!("step_names[{n}]");
        let Value::String(name) = item else {
            return Err(invalid(&field, "must be the name of a step"));
        };
        if !seen.insert(name.clone()) {
            return Err(invalid(&field, &format!("{:?} is listed twice", short(&name))));
        }
        names.push(name);
    }
    Ok(names)
}

/// The part of a template that is behind one decision.
struct Branches<'a> {
    template: &'a Template,
    decision: &'a StepTemplate,
    /// By position: whether the step is behind the decision.
    behind: Vec<bool>,
    /// By position: whether the decision is among the step's own dependencies.
    direct: Vec<bool>,
}

impl<'a> Branches<'a> {
    fn of(template: &'a Template, decision: &'a StepTemplate) -> Self {
        let mut behind = vec![false; template.steps.len()];
        let mut direct = behind.clone();
        let mut open = Vec::new();
        if let Some((position, _)) = template.step(decision.name.as_str()) {
            open.extend(&template.graph.children[position]);
            open.iter().for_each(|&n: &usize| direct[n] = true);
        }
        while let Some(position) = open.pop() {
            if !std::mem::replace(&mut behind[position], true) {
                open.extend(&template.graph.children[position]);
            }
        }
        Self { template, decision, behind, direct }
    }

    /// Checks that each step can be created by the decision, and will be if the others are.
    fn check(&self, names: &[String]) -> Result<Vec<StepName>, Problem> {
        let mut positions = Vec::with_capacity(names.len());
        for (n, name) in names.iter().enumerate() {
            let position = self.position(name).map_err(|message| {
                Problem::new(code::DECISION_STEP_INVALID, message)
                    .at(format!("{KEY}.step_names[{n}]"))
            })?;
            positions.push(position);
        }
        let exists = self.existing(&positions);
        for (n, &position) in positions.iter().enumerate() {
            let needs = &self.template.graph.parents[position];
            if let Some(&missing) = needs.iter().find(|&&p| self.behind[p] && !exists[p]) {
                let message = format!(
                    "`{}` needs `{}`, which is not created; name it too",
                    self.template.steps[position].name, self.template.steps[missing].name
                );
                return Err(Problem::new(code::DECISION_STEP_INVALID, message)
                    .at(format!("{KEY}.step_names[{n}]")));
            }
        }
        Ok(positions.into_iter().map(|n| self.template.steps[n].name.clone()).collect())
    }

    fn position(&self, name: &str) -> Result<usize, String> {
        let decision = &self.decision.name;
        let Some((position, step)) = self.template.step(name) else {
            let steps = self.template.steps.iter().zip(&self.behind);
            let known = steps.filter(|(_, behind)| **behind).map(|(step, _)| step.name.as_str());
            let near = nearest(name, known)
                .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
            return Err(format!("the template has no step {:?}{near}", short(name)));
        };
        if !self.behind[position] {
            return Err(format!(
                "`{name}` does not depend on the decision `{decision}`, so it cannot be created by it"
            ));
        }
        match step.kind {
            StepKind::BatchWorker => Err(format!(
                "`{name}` is a batch_worker; its instances come with its batchable step"
            )),
            StepKind::DeferredConvergence => Err(format!(
                "`{name}` is a deferred_convergence; it comes by itself when what it declares has \
                 ended"
            )),
            _ => Ok(position),
        }
    }

    /// Which steps behind the decision can exist if it creates these. What other decisions say is
    /// not known here.
    fn existing(&self, chosen: &[usize]) -> Vec<bool> {
        let mut exists = vec![false; self.template.steps.len()];
        for &n in self.template.graph.order.iter().filter(|&&n| self.behind[n]) {
            let mut parents = self.template.graph.parents[n].iter().copied();
            let there = |parent: usize| !self.behind[parent] || exists[parent];
            exists[n] = match self.template.steps[n].kind {
                StepKind::DeferredConvergence => parents.any(there),
                _ => (!self.direct[n] || chosen.contains(&n)) && parents.all(there),
            };
        }
        exists
    }
}

/// Names of variants as an older vocabulary had them.
fn is_old_variant(name: &str) -> bool {
    matches!(name, "NoBranches" | "CreateSteps")
}

fn old_shape() -> Problem {
    let message = format!("this is the older shape (`outcome_type`, CamelCase); {SHAPE}");
    Problem::new(code::DECISION_OUTCOME_OLD_SHAPE, message).at(KEY)
}

fn invalid(field: &str, message: &str) -> Problem {
    let path = if field.is_empty() { KEY.to_owned() } else { format!("{KEY}.{field}") };
    Problem::new(code::DECISION_OUTCOME_INVALID, message).at(path)
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::template;

    const STEPS: &[&str] = &[
        "a -", "d d a", "x - d", "y - d x", "z - x", "s b d", "w w s", "j j w z", "e d d", "u - e",
        "other -",
    ];

    fn judge(result: &str) -> Result<Vec<String>, (String, String)> {
        let template = template(STEPS);
        let (_, decision) = template.step("d").expect("there");
        choose(&template, decision, result)
            .map(|names| names.iter().map(ToString::to_string).collect())
            .map_err(|failure| (failure.code, failure.message))
    }

    fn create(names: &str) -> String {
        format!(r#"{{"decision_point_outcome":{{"type":"create_steps","step_names":{names}}}}}"#)
    }

    #[test]
    fn what_can_be_chosen() {
        let none = r#"{"decision_point_outcome":{"type":"no_branches","reason":"quiet"},"x":1}"#;
        assert_eq!(judge(none).expect("valid"), [""; 0]);
        for (names, expect) in [
            (r#"["x"]"#, &["x"][..]),
            (r#"["y","x"]"#, &["y", "x"]),
            // What is behind a branch comes along; to name it changes nothing.
            (r#"["x","z"]"#, &["x", "z"]),
            (r#"["s","e"]"#, &["s", "e"]),
        ] {
            assert_eq!(judge(&create(names)).expect(names), expect, "{names}");
        }
    }

    #[test]
    fn a_join_of_something_outside_comes_anyway() {
        let template = template(&["a -", "d d", "x - d", "j j x a", "z - j d"]);
        let (_, decision) = template.step("d").expect("there");
        let chosen = choose(&template, decision, &create(r#"["z"]"#)).expect("valid");
        assert_eq!(chosen.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["z"]);
    }

    #[test]
    fn what_cannot_be_chosen() {
        for (names, expect) in [
            (r#"["y"]"#, "`y` needs `x`"),
            (r#"["s","z"]"#, "`z` needs `x`"),
            (r#"["u"]"#, "`u` needs `e`"),
            (r#"["a"]"#, "does not depend on the decision"),
            (r#"["d"]"#, "does not depend on the decision"),
            (r#"["other"]"#, "does not depend on the decision"),
            (r#"["w"]"#, "is a batch_worker"),
            (r#"["j"]"#, "is a deferred_convergence"),
            (r#"["X"]"#, "did you mean `x`?"),
            (r#"[""]"#, "has no step"),
            (r#"["x","none"]"#, "step_names[1]"),
        ] {
            let (code, message) = judge(&create(names)).expect_err(names);
            assert_eq!(code, code::DECISION_STEP_INVALID, "{names}");
            assert!(message.contains(expect), "{names}: {message}");
        }
    }

    #[test]
    fn broken_outcomes() {
        let old = code::DECISION_OUTCOME_OLD_SHAPE;
        let invalid = code::DECISION_OUTCOME_INVALID;
        let outcome = |text: &str| format!(r#"{{"decision_point_outcome":{text}}}"#);
        for (result, expect) in [
            ("null".to_owned(), invalid),
            ("[]".to_owned(), invalid),
            ("{}".to_owned(), invalid),
            (r#"{"decision_point_outcom":{}}"#.to_owned(), invalid),
            (outcome("null"), invalid),
            (outcome("[]"), invalid),
            (outcome("{}"), invalid),
            (outcome(r#""NoBranches""#), old),
            (outcome(r#""no_branches""#), invalid),
            (outcome(r#"{"CreateSteps":{"step_names":["x"]}}"#), old),
            (outcome(r#"{"outcome_type":"no_branches"}"#), old),
            (outcome(r#"{"type":"NoBranches"}"#), old),
            (outcome(r#"{"type":"none"}"#), invalid),
            (outcome(r#"{"type":1}"#), invalid),
            (outcome(r#"{"type":null}"#), invalid),
            (outcome(r#"{"type":"no_branches","reason":1}"#), invalid),
            (outcome(r#"{"type":"no_branches","step_names":["x"]}"#), invalid),
            (outcome(r#"{"type":"create_steps"}"#), invalid),
            (outcome(r#"{"type":"create_steps","step_name":["x"]}"#), invalid),
            (outcome(r#"{"type":"create_steps","step_names":["x"],"more":1}"#), invalid),
            (outcome(r#"{"type":"create_steps","type":"no_branches"}"#), invalid),
            (create("[]"), invalid),
            (create("null"), invalid),
            (create("\"x\""), invalid),
            (create("{\"x\":true}"), invalid),
            (create("[1]"), invalid),
            (create("[null]"), invalid),
            (create(r#"["x","x"]"#), invalid),
        ] {
            let (code, message) = judge(&result).expect_err(&result);
            assert_eq!(code, expect, "{result}: {message}");
            assert!(message.contains(KEY), "{result}: {message}");
        }
    }

    #[test]
    fn a_stored_outcome_is_read_as_it_was_judged() {
        let names = |text| {
            let mut names: Vec<String> = stored_choice(text).into_iter().collect();
            names.sort();
            names
        };
        assert_eq!(names(Some(r#"{"type":"create_steps","step_names":["y","x"]}"#)), ["x", "y"]);
        assert_eq!(names(Some(r#"{"type":"no_branches"}"#)), [""; 0]);
        assert_eq!(names(None), [""; 0]);
    }
}
