//! Which schemas a schema consists of, and how they use each other.
//!
//! What JSON Schema ignores by its own rules, such as a keyword that is misspelt or belongs to
//! another draft, is a problem here: an author who wrote it wanted something by it.

use std::collections::HashMap;

use boon::Draft;
use serde_json::{Map, Value};
use tasker_messages::{Problem, code, nearest};

use super::violation::text;

/// Most references in one schema.
const MAX_REFERENCES: usize = 256;

/// How a keyword uses the schemas below it.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    /// It holds none.
    None,
    /// One schema, for the same value.
    Same,
    /// A list of schemas, for the same value.
    SameList,
    /// A schema by each key, for the same value.
    SameMap,
    /// One schema, for values inside; each is looked at by one such schema at the most.
    Inside,
    /// A list of those.
    InsideList,
    /// Those by key.
    InsideMap,
    /// One schema, for values inside, whatever else looks at them.
    Also,
    /// Those by key.
    AlsoMap,
    /// Schemas that do nothing by themselves.
    Shelf,
}

const BOTH: &[(&str, Use)] = &[
    ("$schema", Use::None),
    ("$id", Use::None),
    ("$comment", Use::None),
    ("title", Use::None),
    ("description", Use::None),
    ("default", Use::None),
    ("examples", Use::None),
    ("readOnly", Use::None),
    ("writeOnly", Use::None),
    ("$ref", Use::None),
    ("type", Use::None),
    ("enum", Use::None),
    ("const", Use::None),
    ("multipleOf", Use::None),
    ("maximum", Use::None),
    ("exclusiveMaximum", Use::None),
    ("minimum", Use::None),
    ("exclusiveMinimum", Use::None),
    ("maxLength", Use::None),
    ("minLength", Use::None),
    ("pattern", Use::None),
    ("format", Use::None),
    ("maxItems", Use::None),
    ("minItems", Use::None),
    ("uniqueItems", Use::None),
    ("maxProperties", Use::None),
    ("minProperties", Use::None),
    ("required", Use::None),
    ("properties", Use::InsideMap),
    ("patternProperties", Use::AlsoMap),
    ("additionalProperties", Use::Inside),
    ("propertyNames", Use::Also),
    ("contains", Use::Also),
    ("allOf", Use::SameList),
    ("anyOf", Use::SameList),
    ("oneOf", Use::SameList),
    ("not", Use::Same),
    ("if", Use::Same),
    ("then", Use::Same),
    ("else", Use::Same),
    ("definitions", Use::Shelf),
];

const DRAFT_7: &[(&str, Use)] =
    &[("items", Use::InsideList), ("additionalItems", Use::Inside), ("dependencies", Use::SameMap)];

const DRAFT_2020_12: &[(&str, Use)] = &[
    ("items", Use::Inside),
    ("prefixItems", Use::InsideList),
    ("minContains", Use::None),
    ("maxContains", Use::None),
    ("unevaluatedItems", Use::Inside),
    ("unevaluatedProperties", Use::Inside),
    ("dependentRequired", Use::None),
    ("dependentSchemas", Use::SameMap),
    ("deprecated", Use::None),
    ("$defs", Use::Shelf),
];

/// Keywords that do nothing without another one.
const NEEDS: &[(&str, &str)] = &[
    ("then", "if"),
    ("else", "if"),
    ("additionalItems", "items"),
    ("minContains", "contains"),
    ("maxContains", "contains"),
];

/// What says nothing about a value.
const ANNOTATIONS: &[&str] =
    &["$comment", "title", "description", "default", "examples", "readOnly", "writeOnly"];

/// Formats that can be told from a text alone, at little cost.
const FORMATS: &[&str] = &[
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uuid",
];

/// One schema in the schema.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) pointer: String,
    /// Schemas that look at the same value.
    pub(super) same: Vec<usize>,
    /// Schemas for values inside; each value is looked at by one of them at the most.
    pub(super) inside: Vec<usize>,
    /// Schemas for values inside, each of which may look at every value.
    pub(super) also: Vec<usize>,
    /// Whether what looks at the same value is asked twice.
    pub(super) asks_twice: bool,
}

/// All schemas in a schema; the first is the whole.
pub(super) struct Outline {
    pub(super) parts: Vec<Part>,
    /// The patterns and where they are.
    pub(super) patterns: Vec<(String, String)>,
    draft: Draft,
}

struct Reader {
    outline: Outline,
    by_pointer: HashMap<String, usize>,
    references: Vec<(usize, String)>,
    problems: Vec<Problem>,
}

impl Outline {
    /// Reads a schema.
    ///
    /// # Errors
    /// Everything that is wrong with its structure.
    pub(super) fn of(source: &Value) -> Result<Self, Vec<Problem>> {
        let draft = draft(source).map_err(|problem| vec![problem])?;
        let mut reader = Reader {
            outline: Outline { parts: Vec::new(), draft, patterns: Vec::new() },
            by_pointer: HashMap::new(),
            references: Vec::new(),
            problems: Vec::new(),
        };
        reader.part(source, String::new());
        reader.resolve();
        match reader.problems.is_empty() {
            true => Ok(reader.outline),
            false => Err(reader.problems),
        }
    }

    pub(super) fn draft(&self) -> Draft {
        self.draft
    }
}

fn draft(source: &Value) -> Result<Draft, Problem> {
    let Some(named) = source.get("$schema") else { return Ok(Draft::V2020_12) };
    let name = named.as_str().unwrap_or_default().trim_end_matches('#');
    match name {
        "https://json-schema.org/draft/2020-12/schema" => Ok(Draft::V2020_12),
        "http://json-schema.org/draft-07/schema" => Ok(Draft::V7),
        _ => {
            let message = "must be \"https://json-schema.org/draft/2020-12/schema\" or \
                           \"http://json-schema.org/draft-07/schema#\"";
            Err(Problem::new(code::INVALID_SCHEMA, message).at("/$schema"))
        }
    }
}

/// A key as a part of a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl Reader {
    fn report(&mut self, code: &str, pointer: String, message: impl Into<String>) {
        self.problems.push(Problem::new(code, message).at(pointer));
    }

    /// Reads one schema. Nesting is bounded by the document's limit.
    fn part(&mut self, schema: &Value, pointer: String) -> usize {
        let at = self.outline.parts.len();
        self.by_pointer.insert(pointer.clone(), at);
        self.outline.parts.push(Part { pointer: pointer.clone(), ..Part::default() });
        match schema {
            Value::Object(keywords) => self.keywords(at, keywords, &pointer),
            Value::Bool(_) => {}
            _ => self.report(code::INVALID_SCHEMA, pointer, "must be a schema: a mapping"),
        }
        at
    }

    fn keywords(&mut self, at: usize, keywords: &Map<String, Value>, pointer: &str) {
        for (keyword, value) in keywords {
            let place = format!("{pointer}/{}", escaped(keyword));
            match self.use_of(keyword) {
                Some(how) => self.below(at, how, value, &place),
                None => self.unknown(keyword, place),
            }
        }
        self.outline.parts[at].asks_twice = keywords.contains_key("unevaluatedItems")
            || keywords.contains_key("unevaluatedProperties");
        let alone = |needs: &&(&str, &str)| {
            keywords.contains_key(needs.0) && !keywords.contains_key(needs.1)
        };
        for (keyword, needed) in NEEDS.iter().filter(alone) {
            let message = format!("does nothing without `{needed}`");
            self.report(code::INVALID_SCHEMA, format!("{pointer}/{keyword}"), message);
        }
        let inner = |keyword: &str| !pointer.is_empty() && keywords.contains_key(keyword);
        for keyword in ["$id", "$schema"].into_iter().filter(|keyword| inner(keyword)) {
            let message = "belongs to the whole schema only; remove it here";
            self.report(code::INVALID_SCHEMA, format!("{pointer}/{keyword}"), message);
        }
        if let Some(Value::String(pattern)) = keywords.get("pattern") {
            self.outline.patterns.push((format!("{pointer}/pattern"), pattern.clone()));
        }
        if let Some(Value::Object(patterns)) = keywords.get("patternProperties") {
            let pointer = |key: &String| {
                (format!("{pointer}/patternProperties/{}", escaped(key)), key.clone())
            };
            self.outline.patterns.extend(patterns.keys().map(pointer));
        }
        if let Some(Value::String(format)) = keywords.get("format")
            && !FORMATS.contains(&format.as_str())
        {
            let message = format!("unknown format; there are {}", FORMATS.join(", "));
            self.report(code::INVALID_SCHEMA, format!("{pointer}/format"), message);
        }
        if let Some(reference) = keywords.get("$ref") {
            self.reference(at, reference, keywords, pointer);
        }
    }

    fn tables(&self) -> impl Iterator<Item = &'static (&'static str, Use)> + Clone + use<> {
        let more = if self.is_draft_7() { DRAFT_7 } else { DRAFT_2020_12 };
        BOTH.iter().chain(more)
    }

    fn is_draft_7(&self) -> bool {
        matches!(self.outline.draft, Draft::V7)
    }

    fn use_of(&self, keyword: &str) -> Option<Use> {
        self.tables().find(|(name, _)| *name == keyword).map(|(_, how)| *how)
    }

    fn unknown(&mut self, keyword: &str, place: String) {
        let near = nearest(keyword, self.tables().map(|(name, _)| *name))
            .map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        let message = format!("no keyword of schemas in templates{near}");
        self.report(code::UNKNOWN_KEY, place, message);
    }

    /// Reads the schemas below a keyword. A value of the wrong type is left to the schema of schemas.
    fn below(&mut self, at: usize, how: Use, value: &Value, place: &str) {
        let found: Vec<usize> = match (how, value) {
            (Use::None, _) => return,
            (Use::Same | Use::Inside | Use::Also, schema) => {
                vec![self.part(schema, place.to_owned())]
            }
            // `items` of draft 7 is a schema or a list, `dependencies` also holds lists of names.
            (Use::InsideList, schema @ (Value::Object(_) | Value::Bool(_))) => {
                vec![self.part(schema, place.to_owned())]
            }
            (Use::SameList | Use::InsideList, Value::Array(list)) => {
                let part = |(n, schema)| self.part(schema, format!("{place}/{n}"));
                list.iter().enumerate().map(part).collect()
            }
            (Use::SameMap | Use::InsideMap | Use::AlsoMap | Use::Shelf, Value::Object(map)) => {
                let schemas =
                    map.iter().filter(|(_, schema)| how != Use::SameMap || !schema.is_array());
                schemas
                    .map(|(key, schema)| self.part(schema, format!("{place}/{}", escaped(key))))
                    .collect()
            }
            _ => return,
        };
        let part = &mut self.outline.parts[at];
        match how {
            Use::Same | Use::SameList | Use::SameMap => part.same.extend(found),
            Use::Inside | Use::InsideList | Use::InsideMap => part.inside.extend(found),
            Use::Also | Use::AlsoMap => part.also.extend(found),
            Use::None | Use::Shelf => {}
        }
    }

    fn reference(
        &mut self,
        at: usize,
        value: &Value,
        keywords: &Map<String, Value>,
        pointer: &str,
    ) {
        let place = format!("{pointer}/$ref");
        let Some(reference) = value.as_str() else { return };
        let local = reference
            .strip_prefix('#')
            .filter(|rest| (rest.is_empty() || rest.starts_with('/')) && !rest.contains('%'));
        let Some(target) = local else {
            let message = format!(
                "{:?} is not in this schema; nothing is fetched, so a reference is `#` or begins \
                 with `#/`",
                text(reference)
            );
            return self.report(code::INVALID_SCHEMA, place, message);
        };
        let beside = keywords.keys().find(|key| {
            *key != "$ref" && !ANNOTATIONS.contains(&key.as_str()) && *key != "definitions"
        });
        if let Some(beside) = beside.filter(|_| self.is_draft_7()) {
            let message =
                format!("draft 7 ignores `{}` beside a reference; use `allOf`", text(beside));
            self.report(code::INVALID_SCHEMA, place.clone(), message);
        }
        self.references.push((at, target.to_owned()));
        if self.references.len() == MAX_REFERENCES + 1 {
            let message = format!("more than {MAX_REFERENCES} references");
            self.report(code::TOO_LARGE, place, message);
        }
    }

    fn resolve(&mut self) {
        for (at, target) in std::mem::take(&mut self.references) {
            match self.by_pointer.get(&target) {
                Some(&target) => self.outline.parts[at].same.push(target),
                None => {
                    let place = format!("{}/$ref", self.outline.parts[at].pointer);
                    let message =
                        format!("there is no schema at {:?}", text(&format!("#{target}")));
                    self.report(code::INVALID_SCHEMA, place, message);
                }
            }
        }
    }
}
