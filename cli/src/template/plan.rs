use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde_json::Value;
use serde_json::value::RawValue;
use tasker_messages::{BatchForecast, PlanState, PlanTemplate, Problem, StepPlan, TemplatePlan};

use super::read;
use crate::client::Document;
use crate::cluster::ClusterArgs;
use crate::exit::{Code, Exit};
use crate::output::{self, Format, OutputArgs};
use crate::table::{Table, printable};
use crate::task::context;

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// A YAML file, or - for standard input
    file: PathBuf,
    /// The context that a task would have, a JSON object: the text itself, @FILE, or - for standard
    /// input
    #[arg(long, default_value = "{}", value_name = "JSON|@FILE|-")]
    input: String,
    /// The result of a step in front of a batchable one: STEP=JSON or STEP=@FILE; may be repeated
    #[arg(long = "result", value_name = "STEP=JSON")]
    results: Vec<GivenResult>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct GivenResult {
    step: String,
    argument: String,
}

impl FromStr for GivenResult {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((step, argument)) if !step.is_empty() => {
                Ok(Self { step: step.to_owned(), argument: argument.to_owned() })
            }
            _ => Err("must be STEP=JSON or STEP=@FILE".to_owned()),
        }
    }
}

pub(super) async fn run(args: PlanArgs, cluster: &ClusterArgs) -> anyhow::Result<()> {
    let from_stdin = [args.file.as_os_str() == "-", args.input == "-"].into_iter();
    let from_stdin =
        from_stdin.chain(args.results.iter().map(|r| r.argument == "-")).filter(|is| *is).count();
    if from_stdin > 1 {
        return Err(Exit::usage("standard input can be read once: use - once").into());
    }
    let template = String::from_utf8(read(&args.file)?)
        .map_err(|e| Exit::usage(format!("{} is not UTF-8: {e}", args.file.display())))?;
    let request = PlanTemplate {
        template,
        context: context::read("--input", &args.input)?,
        results: read_results(&args.results)?,
    };
    let plan = cluster.client()?.plan(&request).await?;
    let is_ok = plan.value.ok;
    output::print(&render(plan, args.output.format))?;
    if is_ok {
        return Ok(());
    }
    Err(Exit::new(Code::NotVerified, "the plan has violations").into())
}

fn read_results(given: &[GivenResult]) -> Result<BTreeMap<String, Box<RawValue>>, Exit> {
    let mut results = BTreeMap::new();
    for GivenResult { step, argument } in given {
        let result = context::read_value(&format!("--result {step}"), argument)?;
        if results.insert(step.clone(), result).is_some() {
            return Err(Exit::usage(format!("--result names `{step}` twice")));
        }
    }
    Ok(results)
}

fn render(plan: Document<TemplatePlan>, format: Format) -> String {
    let TemplatePlan { namespace, name, version, violations, warnings, steps, .. } = &plan.value;
    match format {
        Format::Json => return plan.text,
        Format::Ids => return steps.iter().map(|step| format!("{}\n", step.step)).collect(),
        Format::Table => {}
    }
    let mut text = format!("template {namespace}/{name}@{version}\n");
    text.extend(violations.iter().map(violation));
    text.extend(warnings.iter().map(|warning| format!("warning  {}\n", printable(warning))));
    if steps.is_empty() && violations.is_empty() {
        text.push_str("no batchable step\n");
    }
    for step in steps {
        text.push('\n');
        text.push_str(&one(step));
    }
    text
}

fn violation(problem: &Problem) -> String {
    format!("FAIL  {}\n", printable(&problem.to_string()))
}

fn one(step: &StepPlan) -> String {
    let StepPlan { step: name, state, needs, violations, execution_ms, batch } = step;
    let time = execution_ms.map_or(String::new(), |ms| format!(", ran {ms} ms"));
    let mut text = format!("step {name}  {state}{time}\n");
    if *state == PlanState::NeedsResults {
        let flags: Vec<String> = needs.iter().map(|name| format!("--result {name}=JSON")).collect();
        text.push_str(&format!("give the results of its parents: {}\n", flags.join(" ")));
    }
    if let Some(batch) = batch {
        text.push_str(&facts(batch));
        text.push_str(&ranges(batch));
    }
    text.extend(violations.iter().map(violation));
    text
}

fn facts(batch: &BatchForecast) -> String {
    let mut table = Table::bare(2);
    let mut row = |key: &str, value: String| table.row([key.to_owned(), value]);
    row("form", batch.form.clone());
    if let Some(reason) = &batch.reason {
        row("reason", reason.clone());
    }
    row("worker", format!("{}, queue {}", batch.worker_template, batch.queue));
    row("ranges", if batch.total_items.is_some() { batch.members } else { 0 }.to_string());
    if let Some(total) = batch.total_items {
        row("total items", total.to_string());
    }
    if let Some(sizes) = &batch.sizes {
        row("sizes", format!("min {}, median {}, max {}", sizes.min, sizes.median, sizes.max));
    }
    let concurrency = batch.parallelism.map_or("unlimited".to_owned(), |n| n.to_string());
    let of_queue = batch.max_running.map_or(String::new(), |n| format!(", queue limited to {n}"));
    row("concurrency", concurrency + &of_queue);
    let tolerated = batch.tolerated_failures;
    row("failures", format!("{}, {tolerated} tolerated", batch.failure_strategy));
    row("to store", format!("about {} bytes", batch.member_bytes));
    table.render()
}

fn ranges(batch: &BatchForecast) -> String {
    let mut table = Table::bare(4);
    let mut add = |range: &RawValue| {
        // What is no object was made by nobody.
        let range: Value = serde_json::from_str(range.get()).unwrap_or_default();
        let cell = |key: &str| match &range[key] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let from_to = match &range["range"] {
            Value::String(left_out) => left_out.clone(),
            _ => format!("{} .. {}", cell("start_cursor"), cell("end_cursor")),
        };
        table.row(["range".to_owned(), cell("batch_id"), from_to, cell("batch_size")]);
    };
    batch.first.iter().for_each(|range| add(range));
    let shown = (batch.first.len() + batch.last.len()) as u32;
    let first = batch.first.len();
    batch.last.iter().for_each(|range| add(range));
    let lines = table.render();
    let left_out = batch.members.saturating_sub(shown);
    if batch.last.is_empty() || left_out == 0 {
        return lines;
    }
    let mut lines: Vec<&str> = lines.lines().collect();
    let between = format!("{left_out} more");
    lines.insert(first, &between);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(steps: &Value, violations: &Value) -> Document<TemplatePlan> {
        let plan = json!({"namespace": "n", "name": "t", "version": "1.0.0", "ok": false,
            "violations": violations, "warnings": ["w\u{1b}"], "steps": steps})
        .to_string();
        Document { value: serde_json::from_str(&plan).expect("a plan"), text: plan }
    }

    fn range(n: u32) -> Value {
        json!({"batch_id": format!("{n:03}"), "start_cursor": n, "end_cursor": n + 1, "batch_size": 1})
    }

    #[test]
    fn a_batch_as_people_read_it() {
        let ranges = |numbers: std::ops::Range<u32>| numbers.map(range).collect::<Vec<Value>>();
        let steps = json!([{"step": "split", "state": "planned", "execution_ms": 3,
            "violations": [{"code": "BATCH_RANGE_GAP", "field": "ranges", "message": "a gap"}],
            "batch": {"form": "cursor_range", "worker_template": "work", "queue": "gpu",
                "members": 12, "total_items": 12, "sizes": {"min": 1, "median": 1, "max": 1},
                "parallelism": null, "max_running": 2, "failure_strategy": "isolate",
                "tolerated_failures": 12, "member_bytes": 900,
                "first": ranges(1..6), "last": ranges(8..13)}}]);
        let expect = "template n/t@1.0.0\nwarning  w\\u{1b}\n\nstep split  planned, ran 3 ms\n\
            form         cursor_range\nworker       work, queue gpu\nranges       12\n\
            total items  12\nsizes        min 1, median 1, max 1\n\
            concurrency  unlimited, queue limited to 2\nfailures     isolate, 12 tolerated\n\
            to store     about 900 bytes\n\
            range  001  1 .. 2    1\nrange  002  2 .. 3    1\nrange  003  3 .. 4    1\n\
            range  004  4 .. 5    1\nrange  005  5 .. 6    1\n2 more\n\
            range  008  8 .. 9    1\nrange  009  9 .. 10   1\nrange  010  10 .. 11  1\n\
            range  011  11 .. 12  1\nrange  012  12 .. 13  1\n\
            FAIL  ranges: a gap [BATCH_RANGE_GAP]\n";
        assert_eq!(render(plan(&steps, &json!([])), Format::Table), expect);
        assert_eq!(render(plan(&steps, &json!([])), Format::Ids), "split\n");
    }

    #[test]
    fn what_keeps_a_plan_from_being_made() {
        let steps = json!([{"step": "split", "state": "needs_results", "violations": [],
            "needs": ["a", "b"]}]);
        let violations = json!([{"code": "NAMESPACE_FULL", "message": "full"}]);
        let text = render(plan(&steps, &violations), Format::Table);
        assert!(text.contains("FAIL  full [NAMESPACE_FULL]\n"), "{text}");
        assert!(
            text.contains(
                "needs_results\ngive the results of its parents: --result a=JSON --result b=JSON\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn results_are_named() {
        let parse = |text: &str| text.parse::<GivenResult>();
        let parsed = parse("a={\"b\": \"c=d\"}").expect("valid");
        assert_eq!((parsed.step.as_str(), parsed.argument.as_str()), ("a", "{\"b\": \"c=d\"}"));
        for bad in ["a", "=1", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let twice = [parsed.clone(), parsed];
        let error = read_results(&twice).expect_err("given twice").to_string();
        assert!(error.contains("`a` twice"), "{error}");
    }
}
