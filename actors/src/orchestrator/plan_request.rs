//! Reads what is to be planned: the documents of a plan against its template.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;
use tasker_messages::json::{self, Limits};
use tasker_messages::{
    DependencyResult, PlanTemplate, Problem, Refusal, SharedStep, StepFailure, StepKind, StepName,
    TaskRequest, code, nearest,
};
use tasker_store::shared_step;
use tasker_workflow::{StepTemplate, Template, check_context, check_result, choose};

/// What is known of the input of a batchable step.
#[derive(Debug)]
pub(crate) enum Input {
    /// All of it: this is what its handler is to see.
    Known(Box<SharedStep>),
    /// The results of these steps are missing.
    Missing(Vec<StepName>),
    /// A decision does not name the step, so that it would not exist.
    NotChosen,
}

/// What is to be planned.
#[derive(Debug)]
pub(crate) struct PlanRequest {
    pub(crate) template: Template,
    context: Value,
    results: BTreeMap<String, Value>,
    /// What the decisions choose whose results are known.
    choices: BTreeMap<StepName, Vec<StepName>>,
    /// What of the context does not fit the template's schema: then there is no task to plan.
    pub(crate) unfit: Vec<Problem>,
}

impl PlanRequest {
    /// Reads a request. Takes its time: schemas are compiled and values checked.
    ///
    /// # Errors
    /// What is wrong with the template, the context as a document, or a result.
    pub(crate) fn read(
        request: &PlanTemplate,
        environment: Option<&str>,
        max_result_bytes: usize,
    ) -> Result<Self, Refusal> {
        let template = Template::parse_in(request.template.as_bytes(), environment)
            .map_err(|problems| Refusal::of_document("the template", problems))?;
        let batchable = template.steps.iter().filter(|step| step.kind == StepKind::Batchable);
        let count = batchable.count();
        if count > PlanTemplate::MAX_STEPS {
            let message = format!(
                "the template has {count} batchable steps; a plan runs at most {}",
                PlanTemplate::MAX_STEPS
            );
            return Err(Refusal::new(code::TOO_LARGE, message));
        }
        let refuse = |problem| Refusal::of_document("the plan", vec![problem]);
        let context = read_context(&request.context).map_err(refuse)?;
        let (mut results, mut choices) = (BTreeMap::new(), BTreeMap::new());
        for (name, text) in &request.results {
            let result = read_result(&template, name, text, max_result_bytes).map_err(refuse)?;
            results.insert(name.clone(), result);
            if let Some((_, decision)) = template.step(name)
                && decision.kind == StepKind::Decision
            {
                let chosen = choose(&template, decision, text.get());
                let chosen = chosen.map_err(|failure| refuse(problem_at(name, failure)))?;
                choices.insert(decision.name.clone(), chosen);
            }
        }
        let schema = template.input_schema.as_ref();
        let unfit = schema.map(|schema| check_context(schema, &context)).unwrap_or_default();
        Ok(Self { template, context, results, choices, unfit })
    }

    /// The steps to plan, in the order of the template.
    pub(crate) fn batchable_steps(&self) -> impl Iterator<Item = &StepTemplate> {
        self.template.steps.iter().filter(|step| step.kind == StepKind::Batchable)
    }

    /// What the handler of a step is to see, if that is known.
    pub(crate) fn input_of(&self, step: &StepTemplate) -> Input {
        let choices = step.dependencies.iter().filter_map(|name| self.choices.get(name));
        if choices.into_iter().any(|chosen| !chosen.contains(&step.name)) {
            return Input::NotChosen;
        }
        let (mut known, mut missing) = (BTreeMap::new(), Vec::new());
        for name in &step.dependencies {
            match self.results.get(name.as_str()) {
                Some(result) => {
                    known.insert(name.to_string(), DependencyResult::Result(result.clone()));
                }
                None => missing.push(name.clone()),
            }
        }
        if !missing.is_empty() {
            return Input::Missing(missing);
        }
        let context = self.context.clone();
        Input::Known(Box::new(shared_step(&self.template, step, context, known, &[])))
    }
}

fn field_of(name: &str) -> String {
    format!("results.{}", name.chars().take(60).collect::<String>())
}

fn problem_at(name: &str, failure: StepFailure) -> Problem {
    Problem::new(&failure.code, failure.message).at(field_of(name))
}

fn read_context(text: &RawValue) -> Result<Value, Problem> {
    let limits = Limits::bytes(TaskRequest::MAX_CONTEXT_BYTES);
    match json::parse(text.get().as_bytes(), limits) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => {
            let message = "a context must be a JSON object";
            Err(Problem::new(code::WRONG_TYPE, message).at("context"))
        }
        Err(problem) => {
            let field = format!("context.{}", problem.field);
            Err(problem.at(field.trim_end_matches('.')))
        }
    }
}

/// One result, which must be one that its step could return and somebody reads.
fn read_result(
    template: &Template,
    name: &str,
    text: &RawValue,
    max_bytes: usize,
) -> Result<Value, Problem> {
    let invalid = |message: String| Problem::new(code::INVALID_VALUE, message).at(field_of(name));
    let Some((_, step)) = template.step(name) else {
        let near = nearest(name, template.steps.iter().map(|step| step.name.as_str()));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Err(invalid(format!("the template has no such step{near}")));
    };
    let reads = |other: &StepTemplate| {
        other.kind == StepKind::Batchable && other.dependencies.contains(&step.name)
    };
    if !template.steps.iter().any(reads) {
        return Err(invalid("no batchable step depends on this step; leave it out".to_owned()));
    }
    let value = json::parse(text.get().as_bytes(), Limits::bytes(max_bytes));
    let value = value.map_err(|problem| problem.at(field_of(name)))?;
    if let Some(schema) = &step.result_schema {
        check_result(schema, text.get()).map_err(|failure| problem_at(name, failure))?;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    const TEMPLATE: &str = "name: t\nnamespace_name: n\nversion: 1.0.0\n\
        input_schema: {type: object, properties: {n: {type: integer}}}\nsteps:\n\
        - {name: fetch, handler: {callable: x}, result_schema: {type: object, required: [rows]}}\n\
        - {name: other, handler: {callable: x}}\n\
        - {name: split, type: batchable, dependencies: [fetch], handler: {callable: x}}\n\
        - {name: work, type: batch_worker, dependencies: [split], handler: {callable: x}}\n\
        - {name: join, type: deferred_convergence, dependencies: [work], handler: {callable: x}}\n";

    fn read(context: Value, results: &[(&str, Value)]) -> Result<PlanRequest, Refusal> {
        let raw = |value: &Value| to_raw_value(value).expect("JSON");
        let request = PlanTemplate {
            template: TEMPLATE.to_owned(),
            context: raw(&context),
            results: results.iter().map(|(name, r)| ((*name).to_owned(), raw(r))).collect(),
        };
        PlanRequest::read(&request, None, 1_000)
    }

    #[test]
    fn an_analyzer_sees_what_is_given() {
        let bare = read(json!({"n": 1}), &[]).expect("a plan");
        let (_, step) = bare.template.step("split").expect("a step");
        let Input::Missing(missing) = bare.input_of(step) else { panic!("a result is missing") };
        assert_eq!(missing.iter().map(StepName::as_str).collect::<Vec<_>>(), ["fetch"]);
        let full = read(json!({"n": 1}), &[("fetch", json!({"rows": 3}))]).expect("a plan");
        let Input::Known(shared) = full.input_of(step) else { panic!("everything is known") };
        assert_eq!((shared.context, shared.kind), (json!({"n": 1}), StepKind::Batchable));
        let Some(DependencyResult::Result(result)) = shared.dependencies.get("fetch") else {
            panic!("no result of fetch");
        };
        assert_eq!(result, &json!({"rows": 3}));
        assert_eq!(shared.split.map(|split| split.worker_template).as_deref(), Some("work"));
    }

    #[test]
    fn a_decision_says_which_steps_exist() {
        let template = "name: t\nnamespace_name: n\nversion: 1.0.0\nsteps:\n\
            - {name: route, type: decision, handler: {callable: x}}\n\
            - {name: a, type: batchable, dependencies: [route], handler: {callable: x}}\n\
            - {name: aw, type: batch_worker, dependencies: [a], handler: {callable: x}}\n\
            - {name: b, type: batchable, dependencies: [route], handler: {callable: x}}\n\
            - {name: bw, type: batch_worker, dependencies: [b], handler: {callable: x}}\n";
        let read = |outcome: Value| {
            let result = to_raw_value(&json!({"decision_point_outcome": outcome})).expect("JSON");
            let request = PlanTemplate {
                template: template.to_owned(),
                context: to_raw_value(&json!({})).expect("JSON"),
                results: [("route".to_owned(), result)].into(),
            };
            PlanRequest::read(&request, None, 1_000)
        };
        let one = read(json!({"type": "create_steps", "step_names": ["a"]})).expect("a plan");
        let inputs: Vec<Input> = one.batchable_steps().map(|step| one.input_of(step)).collect();
        assert!(matches!(inputs[..], [Input::Known(_), Input::NotChosen]), "{inputs:?}");
        let none = read(json!({"type": "no_branches"})).expect("a plan");
        let inputs: Vec<Input> = none.batchable_steps().map(|step| none.input_of(step)).collect();
        assert!(matches!(inputs[..], [Input::NotChosen, Input::NotChosen]), "{inputs:?}");
        let refusal = read(json!({"type": "create_steps", "step_names": ["aw"]}));
        let refusal = refusal.expect_err("a worker cannot be chosen");
        assert_eq!(refusal.code, code::DECISION_STEP_INVALID, "{refusal}");
        assert_eq!(refusal.problems[0].field, "results.route");
    }

    #[test]
    fn documents_that_make_no_plan() {
        let rows = json!({"rows": 3});
        type Results<'a> = &'a [(&'a str, Value)];
        let table: [(Value, Results<'_>, &str, &str); 6] = [
            (json!([]), &[], code::WRONG_TYPE, "context"),
            (json!({"a": "\0"}), &[], code::NUL_CHARACTER, "context"),
            (json!({}), &[("fetsh", rows.clone())], code::INVALID_VALUE, "did you mean `fetch`?"),
            (json!({}), &[("other", rows.clone())], code::INVALID_VALUE, "results.other"),
            (json!({}), &[("fetch", json!({}))], code::RESULT_SCHEMA_VIOLATION, "results.fetch"),
            (json!({}), &[("fetch", json!({"rows": "x".repeat(1_000)}))], code::TOO_LARGE, "fetch"),
        ];
        for (context, results, code, says) in table {
            let refusal = read(context, results).expect_err(says);
            assert_eq!(refusal.code, code, "{refusal}");
            assert!(refusal.to_string().contains(says), "{refusal}");
        }
        // A context that does not fit is a finding of the plan.
        let unfit = read(json!({"n": "one"}), &[]).expect("a plan").unfit;
        assert_eq!(
            (unfit[0].code.as_str(), unfit[0].field.as_str()),
            (code::CONTEXT_SCHEMA_VIOLATION, "context.n")
        );
    }
}
