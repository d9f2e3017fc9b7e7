//! JSON Schema for contexts and results: checked when a template is read, compiled once.
//!
//! Schemas come from whoever may register a template and values from whoever may submit a task, so
//! neither may cost more than it is worth: nothing is fetched, patterns run in linear time, and what
//! checking can cost at most is known before it begins.

mod cost;
mod outline;
mod verdict;
mod violation;

use std::fmt;
use std::sync::Arc;

use boon::{CompileError, Compiler, Draft, SchemaIndex, Schemas, UrlLoader};
use serde_json::{Value, json};
use tasker_messages::{Problem, code};

use self::cost::Cost;
use self::outline::Outline;
pub use self::verdict::{check_context, check_result};
pub use self::violation::Violation;

/// Most bytes of a schema as JSON.
const MAX_BYTES: usize = 64 * 1024;
/// Most bytes of a compiled pattern.
const MAX_PATTERN_BYTES: usize = 256 * 1024;
/// Most violations that are told of one value.
const MAX_VIOLATIONS: usize = 20;
/// Violations of a value that takes more steps than this are not searched for: each takes memory.
const MAX_SEARCH: u64 = 200_000;

/// Schemas inside each other for which any stack is large enough.
const SHALLOW: u32 = 32;
/// The stack for more of them, of which only what is used takes memory.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Names for the compiler; nothing is looked for under them.
const WHOLE: &str = "schema:whole";
const REFUSAL: &str = "schema:refusal";

/// A schema that holds every rule for schemas. Cheap to clone.
#[derive(Clone)]
pub struct Schema(Arc<Inner>);

struct Inner {
    source: Value,
    schemas: Schemas,
    whole: SchemaIndex,
    /// Fits what the schema does not fit. Inside of `not`, only one bit is asked for, so that it is
    /// told at the first violation and without gathering any.
    refusal: SchemaIndex,
    costs: Vec<Cost>,
    patterns: usize,
}

/// Fetches nothing.
struct Nowhere;

impl UrlLoader for Nowhere {
    fn load(&self, _: &str) -> Result<Value, Box<dyn std::error::Error>> {
        Err("nothing is fetched".into())
    }
}

impl Schema {
    /// Checks and compiles a schema with at most so many patterns.
    ///
    /// # Errors
    /// What is wrong with it; the field of each problem is a JSON pointer into the schema.
    pub(crate) fn compile(source: Value, most_patterns: usize) -> Result<Self, Vec<Problem>> {
        let bytes = source.to_string().len();
        if bytes > MAX_BYTES {
            let message = format!("the schema has {bytes} bytes as JSON; the limit is {MAX_BYTES}");
            return Err(vec![Problem::new(code::TOO_LARGE, message)]);
        }
        let outline = Outline::of(&source)?;
        let patterns = outline.patterns.len();
        if patterns > most_patterns {
            let message = "more patterns than one template may have";
            return Err(vec![Problem::new(code::TOO_LARGE, message)]);
        }
        let large: Vec<Problem> = outline.patterns.iter().filter_map(large_pattern).collect();
        if !large.is_empty() {
            return Err(large);
        }
        let costs = cost::of(&outline)?;
        let (schemas, whole, refusal) = build(&source, outline.draft())?;
        Ok(Self(Arc::new(Inner { source, schemas, whole, refusal, costs, patterns })))
    }

    /// How many patterns it has.
    pub(crate) fn patterns(&self) -> usize {
        self.0.patterns
    }

    /// What of a value does not fit, at most twenty things. `name` is what the paths begin with.
    pub fn check(&self, value: &Value, name: &str) -> Vec<Violation> {
        self.check_within(value, name, u64::MAX)
    }

    /// The same, if it takes no more than so many steps of a tenth of a microsecond.
    pub(crate) fn check_within(&self, value: &Value, name: &str, most: u64) -> Vec<Violation> {
        match cost::steps(&self.0.costs, value).filter(|(steps, _)| *steps <= most) {
            Some((steps, nesting)) if nesting <= SHALLOW => self.look(value, name, steps),
            Some((steps, _)) => on_a_large_stack(|| self.look(value, name, steps))
                .unwrap_or_else(|| one(name, "could not be checked: there is no memory for it")),
            None => one(name, "is too large or too deep to be checked against its schema"),
        }
    }

    fn look(&self, value: &Value, name: &str, steps: u64) -> Vec<Violation> {
        let Inner { schemas, whole, refusal, .. } = &*self.0;
        if schemas.validate(value, *refusal).is_err() {
            return Vec::new();
        }
        if steps > MAX_SEARCH {
            return one(name, "does not fit its schema, and is too large to say where");
        }
        match schemas.validate(value, *whole) {
            Ok(()) => Vec::new(),
            Err(error) => violation::all(&error, name, MAX_VIOLATIONS),
        }
    }
}

fn one(name: &str, message: &str) -> Vec<Violation> {
    vec![Violation { path: name.to_owned(), message: message.to_owned() }]
}

/// The validator calls itself for each schema inside another; threads have stacks of 2 MiB.
fn on_a_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let joined = thread.spawn_scoped(scope, work).ok()?.join();
        // A panic is its caller's, as it would be without the thread.
        Some(joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Compiles the schema, and the one that fits what it does not fit.
fn build(
    source: &Value,
    draft: Draft,
) -> Result<(Schemas, SchemaIndex, SchemaIndex), Vec<Problem>> {
    let mut compiler = Compiler::new();
    compiler.use_loader(Box::new(Nowhere));
    compiler.set_default_draft(draft);
    compiler.enable_format_assertions();
    let mut schemas = Schemas::new();
    let mut compile = |name: &str, schema: Value| {
        compiler.add_resource(name, schema).map_err(|error| unusable(&error))?;
        compiler.compile(name, &mut schemas).map_err(|error| unusable(&error))
    };
    let mut plain = source.clone();
    if let Some(keywords) = plain.as_object_mut() {
        // It would give the schema another name.
        keywords.remove("$id");
    }
    let whole = compile(WHOLE, plain)?;
    let refusal = compile(REFUSAL, json!({"not": {"$ref": WHOLE}}))?;
    Ok((schemas, whole, refusal))
}

/// A pattern that would take too much memory. Whether it is one at all is for the compiler to say.
fn large_pattern((pointer, pattern): &(String, String)) -> Option<Problem> {
    // Patterns of JSON Schema mean ASCII by these, where those of the engine mean much more.
    let ascii = pattern.replace(r"\d", "[0-9]").replace(r"\w", "[0-9A-Za-z_]");
    let compiled = regex::RegexBuilder::new(&ascii).size_limit(MAX_PATTERN_BYTES).build();
    matches!(compiled, Err(regex::Error::CompiledTooBig(_))).then(|| {
        let message = format!("the pattern takes more than {MAX_PATTERN_BYTES} bytes compiled");
        Problem::new(code::TOO_LARGE, message).at(pointer.as_str())
    })
}

/// What the compiler says, with pointers into the schema.
fn unusable(error: &CompileError) -> Vec<Problem> {
    let problem =
        |message: String, pointer: &str| Problem::new(code::INVALID_SCHEMA, message).at(pointer);
    match error {
        CompileError::ValidationError { src, .. } => violation::all(src, "", MAX_VIOLATIONS)
            .into_iter()
            .map(|violation| problem(violation.message, &violation.path))
            .collect(),
        CompileError::InvalidRegex { url, src, .. } => {
            let pointer = url.split_once('#').map_or("", |(_, pointer)| pointer);
            vec![problem(violation::text(&format!("no usable pattern: {src}")), pointer)]
        }
        other => vec![problem(violation::text(&other.to_string()), "")],
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.0.source).finish()
    }
}

#[cfg(test)]
mod tests;
