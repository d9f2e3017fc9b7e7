//! Results of handlers, judged as an orchestrator judges them before they are stored.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use tasker_messages::{StepFailure, StepKind};
use tasker_workflow::{Template, batching, check_result, choose, storable};

/// The limit that `outcomes.max_result_bytes` has if nobody says otherwise.
const MAX_RESULT: usize = 1024 * 1024;
/// The limit that `batches.max_members` has if nobody says otherwise.
const MAX_MEMBERS: u32 = 1_000_000;

/// What an orchestrator says to the result of a step: `split`, a batchable step, `route`, a decision, or
/// another, whose `result_schema` is given as JSON (`true` for none).
///
/// # Errors
/// The error with which the step ends.
///
/// # Panics
/// If the schema is none.
pub fn judge_result(step: &str, schema: &str, result: &str) -> Result<(), Box<StepFailure>> {
    storable(result, MAX_RESULT)?;
    let template = template(schema);
    let (_, step) = template.step(step).expect("a step of the template");
    match step.kind {
        StepKind::Batchable => {
            let plan = batching::plan(&template, step, result, None, MAX_MEMBERS)?;
            // What was planned can be made.
            let last = plan.expected().checked_sub(1);
            for ordinal in [Some(0), last].into_iter().flatten() {
                let _member = plan.member(ordinal);
            }
        }
        StepKind::Decision => {
            let names = choose(&template, step, result)?;
            assert!(names.iter().all(|name| template.step(name.as_str()).is_some()));
        }
        _ => {}
    }
    if let Some(schema) = &step.result_schema {
        check_result(schema, result)?;
    }
    Ok(())
}

fn template(schema: &str) -> Template {
    static TEMPLATES: LazyLock<Mutex<BTreeMap<String, Template>>> = LazyLock::new(Mutex::default);
    let mut templates = TEMPLATES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let made = || {
        let schema =
            if schema == "true" { String::new() } else { format!("result_schema: {schema}") };
        let yaml = format!(
            "name: results\nnamespace_name: corpus\nversion: 1.0.0\nsteps:\n\
             - {{name: split, type: batchable, handler: {{callable: x}}}}\n\
             - {{name: work, type: batch_worker, dependencies: [split], handler: {{callable: x}}}}\n\
             - {{name: join, type: deferred_convergence, dependencies: [work], handler: {{callable: x}}}}\n\
             - {{name: route, type: decision, handler: {{callable: x}}}}\n\
             - {{name: left, dependencies: [route], handler: {{callable: x}}}}\n\
             - {{name: right, dependencies: [route], handler: {{callable: x}}}}\n\
             - {{name: plain, handler: {{callable: x}}, {schema}}}\n"
        );
        Template::parse(yaml.as_bytes()).unwrap_or_else(|problems| panic!("{schema}: {problems:?}"))
    };
    templates.entry(schema.to_owned()).or_insert_with(made).clone()
}
