//! Reading `batch_processing_outcome`.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tasker_messages::cursor::Pieces;
use tasker_messages::json::{self, Limits};
use tasker_messages::{Problem, StepKind, code};

use super::{BatchPlan, list};
use crate::stray::stray_key;
use crate::template::{StepTemplate, Template};

const KEY: &str = "batch_processing_outcome";
const FORMS: [&str; 3] = ["cursor_configs", "cursor_range", "cursors_appended"];
const NONE_KEYS: [&str; 2] = ["type", "reason"];
const CREATE_KEYS: [&str; 7] = [
    "type",
    "worker_template_name",
    "worker_count",
    "total_items",
    "cursor_configs",
    "cursor_range",
    "cursors_appended",
];
const RANGE_KEYS: [&str; 3] = ["start", "end", "batch_size"];

/// What an outcome must look like, for those who write one.
const SHAPE: &str = "write {\"type\":\"no_batches\"} or {\"type\":\"create_batches\",\
    \"worker_template_name\":…,\"worker_count\":…,\"cursor_configs\":[…],\"total_items\":…}";

/// A handler's result as far as it matters here.
#[derive(Deserialize)]
struct HandlerResult<'a> {
    #[serde(borrow)]
    batch_processing_outcome: Option<&'a RawValue>,
}

/// The ranges as they were written.
#[derive(Deserialize)]
struct RawConfigs<'a> {
    #[serde(borrow)]
    cursor_configs: Vec<&'a RawValue>,
}

/// What an outcome is held against.
pub(super) struct Judge<'a> {
    pub(super) template: &'a Template,
    pub(super) step: &'a StepTemplate,
    pub(super) appended: Option<u32>,
    pub(super) max_members: u32,
}

/// The keys of an outcome; what is taken out is known.
struct Outcome<'a> {
    text: &'a str,
    keys: Map<String, Value>,
}

impl Judge<'_> {
    pub(super) fn plan(&self, result: &str) -> Result<BatchPlan, Problem> {
        let mut outcome = Outcome::read(result)?;
        let plan = match outcome.kind()?.as_str() {
            kind @ "no_batches" => {
                outcome.check_keys(kind, &NONE_KEYS, &CREATE_KEYS)?;
                outcome.optional_text("reason")?;
                BatchPlan::NoBatches
            }
            kind => {
                outcome.check_keys(kind, &CREATE_KEYS, &NONE_KEYS)?;
                self.create_batches(&mut outcome)?
            }
        };
        match (self.appended.unwrap_or(0), &plan) {
            (0, _) | (_, BatchPlan::Appended(_)) => Ok(plan),
            (appended, _) => {
                let message = format!(
                    "{appended} cursors were appended, but the outcome does not conclude them; \
                     return create_batches with `cursors_appended`: {appended}"
                );
                Err(mismatch("cursors_appended", message))
            }
        }
    }

    fn create_batches(&self, outcome: &mut Outcome<'_>) -> Result<BatchPlan, Problem> {
        self.worker_template(outcome)?;
        let worker_count = outcome.number("worker_count", u32::MAX.into())? as u32;
        outcome.number("total_items", u64::MAX)?;
        let plan = match outcome.form()? {
            "cursor_configs" => self.list(outcome, worker_count)?,
            "cursor_range" => self.range(outcome)?,
            _ => self.appended(outcome)?,
        };
        if worker_count != plan.expected() {
            let message = format!(
                "`worker_count` is {worker_count}, but there are {} ranges",
                plan.expected()
            );
            return Err(mismatch("worker_count", message));
        }
        Ok(plan)
    }

    fn worker_template(&self, outcome: &mut Outcome<'_>) -> Result<(), Problem> {
        let unknown = |message: String| {
            Err(problem(code::BATCH_WORKER_TEMPLATE_UNKNOWN, "worker_template_name", message))
        };
        let batchable = &self.step.name;
        let expected = self.template.worker_of(batchable.as_str());
        let expected = expected.map_or("", |worker| worker.name.as_str());
        let Some(named) = outcome.optional_text("worker_template_name")? else {
            return unknown(format!("is missing; write `{expected}`"));
        };
        if named == expected {
            return Ok(());
        }
        let shown: String = named.chars().take(60).collect();
        match self.template.step(&named) {
            Some((_, step)) if step.kind == StepKind::BatchWorker => unknown(format!(
                "`{named}` is the worker of another step; that of `{batchable}` is `{expected}`"
            )),
            Some(_) => unknown(format!("`{named}` is no batch_worker; write `{expected}`")),
            None => unknown(format!("the template has no step {shown:?}; write `{expected}`")),
        }
    }

    fn list(&self, outcome: &mut Outcome<'_>, worker_count: u32) -> Result<BatchPlan, Problem> {
        let configs = match outcome.keys.remove("cursor_configs") {
            Some(Value::Array(configs)) => configs,
            _ => return Err(invalid("cursor_configs", "must be a list of ranges")),
        };
        self.check_count("cursor_configs", configs.len() as u64)?;
        // Told first: a wrong count explains itself better than what follows from it.
        if u64::from(worker_count) != configs.len() as u64 {
            let message =
                format!("`worker_count` is {worker_count}, but there are {} ranges", configs.len());
            return Err(mismatch("worker_count", message));
        }
        let raw: RawConfigs<'_> = serde_json::from_str(outcome.text)
            .map_err(|error| invalid("cursor_configs", &error.to_string()))?;
        let members = list::members(&configs, &raw.cursor_configs)
            .and_then(|members| self.check_names(members))
            .map_err(|problem| inside("cursor_configs", problem))?;
        Ok(BatchPlan::List(members))
    }

    /// A member must not be named like a step of the template.
    fn check_names(&self, members: Vec<super::Member>) -> Result<Vec<super::Member>, Problem> {
        let worker = self.template.worker_of(self.step.name.as_str());
        let worker = worker.map_or("", |step| step.name.as_str());
        for (n, member) in members.iter().enumerate() {
            let name = tasker_messages::cursor::member_name(worker, &member.batch_id);
            if self.template.step(&name).is_some() {
                let message = format!("makes the name `{name}`, which is another step's");
                let problem = Problem::new(code::BATCH_ID_INVALID, message);
                return Err(problem.at(format!("[{n}].batch_id")));
            }
        }
        Ok(members)
    }

    fn range(&self, outcome: &mut Outcome<'_>) -> Result<BatchPlan, Problem> {
        let Some(Value::Object(keys)) = outcome.keys.remove("cursor_range") else {
            return Err(invalid(
                "cursor_range",
                "must be {\"start\":…,\"end\":…,\"batch_size\":…}",
            ));
        };
        let mut range = Outcome { text: "", keys };
        let at = |problem| inside("cursor_range.", problem);
        range.check_keys("cursor_range", &RANGE_KEYS, &[]).map_err(at)?;
        let start = range.number("start", u64::MAX).map_err(at)?;
        let end = range.number("end", u64::MAX).map_err(at)?;
        let batch_size = range.number("batch_size", u64::MAX).map_err(at)?;
        let wrong =
            |message: String| Err(problem(code::BATCH_RANGE_INVALID, "cursor_range", message));
        if start > end {
            return wrong(format!("`start` {start} is behind `end` {end}"));
        }
        if start == end {
            return wrong("is empty; return {\"type\":\"no_batches\"}".to_owned());
        }
        if batch_size == 0 {
            return wrong("`batch_size` must be at least 1".to_owned());
        }
        let total = end - start;
        if batch_size.min(total) > u64::from(u32::MAX) {
            return wrong(format!("`batch_size` must be at most {}", u32::MAX));
        }
        self.check_count("cursor_range", total.div_ceil(batch_size))?;
        Ok(BatchPlan::Range(Pieces::by_size(start, end, batch_size, self.max_members)))
    }

    fn appended(&self, outcome: &mut Outcome<'_>) -> Result<BatchPlan, Problem> {
        let count = outcome.number("cursors_appended", u32::MAX.into())? as u32;
        let stored = self.appended.unwrap_or(0);
        if count != stored {
            let message = format!("says {count}, but {stored} cursors are stored without a gap");
            return Err(mismatch("cursors_appended", message));
        }
        self.check_count("cursors_appended", count.into())?;
        Ok(BatchPlan::Appended(count))
    }

    fn check_count(&self, field: &str, count: u64) -> Result<(), Problem> {
        if count == 0 {
            return Err(invalid(field, "holds no range; return {\"type\":\"no_batches\"}"));
        }
        if count > u64::from(self.max_members) {
            let message = format!("{count} batches; the limit is {}", self.max_members);
            return Err(problem(code::BATCH_TOO_LARGE, field, message));
        }
        Ok(())
    }
}

impl<'a> Outcome<'a> {
    fn read(result: &'a str) -> Result<Self, Problem> {
        let bare = |message: String| Problem::new(code::BATCH_OUTCOME_INVALID, message);
        let an_object = format!("the result of a batchable step must be an object with `{KEY}`");
        // Read as a struct, a list of values would pass for an object.
        if !result.trim_start().starts_with('{') {
            return Err(bare(an_object));
        }
        let result: HandlerResult<'a> =
            serde_json::from_str(result).map_err(|error| bare(format!("{an_object}: {error}")))?;
        let Some(outcome) = result.batch_processing_outcome else {
            return Err(bare(format!("`{KEY}` is missing from the result; {SHAPE}")));
        };
        let text = outcome.get();
        match json::parse(text.as_bytes(), Limits::bytes(usize::MAX)) {
            Ok(Value::Object(keys)) => Ok(Self { text, keys }),
            Ok(Value::String(name)) if is_old_variant(&name) => Err(old_shape()),
            Ok(_) => Err(bare(format!("`{KEY}` must be an object; {SHAPE}"))),
            Err(problem) => Err(bare(format!("`{KEY}`: {}", problem.message))),
        }
    }

    /// The value of `type`, which is one of the two.
    fn kind(&mut self) -> Result<String, Problem> {
        if self.keys.contains_key("outcome_type") || self.keys.keys().any(|key| is_old_variant(key))
        {
            return Err(old_shape());
        }
        match self.keys.remove("type") {
            Some(Value::String(kind)) if is_old_variant(&kind) => Err(old_shape()),
            Some(Value::String(kind)) if matches!(&*kind, "no_batches" | "create_batches") => {
                Ok(kind)
            }
            Some(other) => {
                let other: String = other.to_string().chars().take(60).collect();
                Err(invalid("type", &format!("{other} is no outcome; {SHAPE}")))
            }
            None => Err(invalid("type", &format!("is missing; {SHAPE}"))),
        }
    }

    /// The one form in which the ranges are given.
    fn form(&self) -> Result<&'static str, Problem> {
        let mut given = FORMS.into_iter().filter(|&form| self.keys.contains_key(form));
        match (given.next(), given.next()) {
            (Some(form), None) => Ok(form),
            (None, _) => {
                Err(invalid("", &format!("has no ranges; give one of {}", FORMS.join(", "))))
            }
            (Some(one), Some(other)) => {
                let message = format!("has both `{one}` and `{other}`; give exactly one");
                Err(invalid("", &message))
            }
        }
    }

    fn optional_text(&mut self, key: &str) -> Result<Option<String>, Problem> {
        match self.keys.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(key, "must be a text")),
        }
    }

    fn number(&mut self, key: &str, most: u64) -> Result<u64, Problem> {
        let value = self.keys.remove(key).ok_or_else(|| invalid(key, "is missing"))?;
        let number = value.as_u64().filter(|&number| number <= most);
        number.ok_or_else(|| invalid(key, &format!("must be an integer from 0 to {most}")))
    }

    /// Told before the values are read: a misspelt key explains itself better than what is missing
    /// because of it.
    fn check_keys(&self, kind: &str, own: &[&str], others: &[&str]) -> Result<(), Problem> {
        stray_key(&self.keys, kind, own, others)
            .map_or(Ok(()), |message| Err(invalid("", &message)))
    }
}

/// Names of variants as an older vocabulary had them.
fn is_old_variant(name: &str) -> bool {
    matches!(name, "NoBatches" | "CreateBatches")
}

fn old_shape() -> Problem {
    let message = format!("this is the older shape (`outcome_type`, CamelCase); {SHAPE}");
    Problem::new(code::BATCH_OUTCOME_OLD_SHAPE, message).at(KEY)
}

fn problem(code: &str, field: &str, message: impl Into<String>) -> Problem {
    let path = if field.is_empty() { KEY.to_owned() } else { format!("{KEY}.{field}") };
    Problem::new(code, message).at(path)
}

fn invalid(field: &str, message: &str) -> Problem {
    problem(code::BATCH_OUTCOME_INVALID, field, message)
}

fn mismatch(field: &str, message: String) -> Problem {
    problem(code::BATCH_COUNT_MISMATCH, field, message)
}

/// The same problem one level further out.
fn inside(outer: &str, problem: Problem) -> Problem {
    let own = problem.field.strip_prefix(KEY).unwrap_or(&problem.field);
    let own = if outer.ends_with('.') { own.trim_start_matches('.') } else { own };
    let field = format!("{KEY}.{outer}{own}");
    let field = field.trim_end_matches('.').to_owned();
    Problem { field, ..problem }
}
