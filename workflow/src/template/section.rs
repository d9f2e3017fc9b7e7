//! A mapping that is emptied key by key, so that what remains is what nobody knows.

use std::ops::RangeInclusive;

use serde_json::{Map, Number, Value};
use tasker_messages::{Problem, code, nearest};

use super::problems::{Problems, shown};
use super::scalar::{Meaning, meaning};
use super::yaml::{Content, Entry, Node, join};

/// One mapping of the document.
pub(super) struct Section<'p> {
    pub(super) path: String,
    pub(super) line: u32,
    entries: Vec<Entry>,
    known: Vec<&'static str>,
    problems: &'p Problems,
}

/// A value that was taken out of a section.
pub(super) struct Field {
    pub(super) path: String,
    pub(super) key_line: u32,
    pub(super) node: Node,
}

impl<'p> Section<'p> {
    /// Opens a node as a mapping; reports it if it is none.
    pub(super) fn open(path: String, node: Node, problems: &'p Problems) -> Option<Self> {
        let line = node.line;
        match node.content {
            Content::Mapping(entries) => {
                Some(Self { path, line, entries, known: Vec::new(), problems })
            }
            _ => {
                wrong_type(problems, &path, &node, "a mapping of keys and values");
                None
            }
        }
    }

    /// Takes a value out. A key without a value counts as one that is not there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Field> {
        self.known.push(key);
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        let Entry { line, value, .. } = self.entries.remove(at);
        if meaning(&value) == Meaning::Null {
            return None;
        }
        Some(Field { path: join(&self.path, key), key_line: line, node: value })
    }

    /// Takes everything out, whatever the keys are. A key without a value is left out.
    pub(super) fn take_all(&mut self) -> Vec<(String, Field)> {
        let entries = std::mem::take(&mut self.entries).into_iter();
        entries
            .filter(|entry| meaning(&entry.value) != Meaning::Null)
            .map(|Entry { key, line, value }| {
                let path = join(&self.path, &key);
                (key, Field { path, key_line: line, node: value })
            })
            .collect()
    }

    /// Whether the key is there and was not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Where the key stands, if it is there and was not taken yet.
    pub(super) fn line_of(&self, key: &str) -> Option<u32> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.line)
    }

    /// Takes the value of one of two spellings of a key.
    pub(super) fn take_either(&mut self, one: &'static str, other: &'static str) -> Option<Field> {
        let (first, second) = (self.take(one), self.take(other));
        if let (Some(_), Some(second)) = (&first, &second) {
            let message = format!("`{one}` and `{other}` mean the same; keep one of them");
            self.report(code::CONFLICTING_KEYS, &second.path, second.key_line, message);
        }
        first.or(second)
    }

    /// Opens a section inside this one.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'p>> {
        let field = self.take(key)?;
        Section::open(field.path, field.node, self.problems)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<(String, Field)> {
        let field = self.take(key)?;
        let text = text(self.problems, &field.path, &field.node)?;
        Some((text, field))
    }

    pub(super) fn required_text(&mut self, key: &'static str) -> Option<(String, Field)> {
        match self.take(key) {
            Some(field) => text(self.problems, &field.path, &field.node).map(|text| (text, field)),
            None => {
                self.missing(key);
                None
            }
        }
    }

    pub(super) fn missing(&self, key: &str) {
        let message = format!("`{key}` is missing");
        self.report(code::MISSING_KEY, &join(&self.path, key), self.line, message);
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let field = self.take(key)?;
        match meaning(&field.node) {
            Meaning::Boolean(value) => Some(value),
            _ => {
                wrong_type(self.problems, &field.path, &field.node, "`true` or `false`");
                None
            }
        }
    }

    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let field = self.take(key)?;
        let number = match meaning(&field.node) {
            Meaning::Integer(number) => u64::try_from(number).ok(),
            Meaning::Unrepresentable => None,
            _ => {
                wrong_type(self.problems, &field.path, &field.node, "an integer");
                return None;
            }
        };
        let inside = number.filter(|number| range.contains(number));
        if inside.is_none() {
            let message = format!("must be {} to {}", range.start(), range.end());
            self.report(code::INVALID_VALUE, &field.path, field.node.line, message);
        }
        inside
    }

    /// A length of time in a unit of so many milliseconds, fractions allowed; more than nothing.
    pub(super) fn duration_ms(
        &mut self,
        key: &'static str,
        unit_ms: u32,
        most_ms: u64,
        unit: &str,
    ) -> Option<u64> {
        let field = self.take(key)?;
        let millis = match meaning(&field.node) {
            Meaning::Integer(number) => number.checked_mul(unit_ms.into()),
            // The cast saturates; what saturates is outside the bounds below.
            Meaning::Decimal(number) => Some((number * f64::from(unit_ms)).ceil() as i128),
            Meaning::Unrepresentable => None,
            _ => {
                let expected = format!("a number of {unit}");
                wrong_type(self.problems, &field.path, &field.node, &expected);
                return None;
            }
        };
        let valid = millis.and_then(|millis| u64::try_from(millis).ok());
        let valid = valid.filter(|millis| (1..=most_ms).contains(millis));
        if valid.is_none() {
            let most = most_ms / u64::from(unit_ms);
            let message = format!("must be more than 0 and at most {most} {unit}");
            self.report(code::INVALID_VALUE, &field.path, field.node.line, message);
        }
        valid
    }

    /// A number with or without decimals.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let field = self.take(key)?;
        let number = match meaning(&field.node) {
            Meaning::Integer(number) => Some(number as f64),
            Meaning::Decimal(number) => Some(number),
            Meaning::Unrepresentable => None,
            _ => {
                wrong_type(self.problems, &field.path, &field.node, "a number");
                return None;
            }
        };
        let inside = number.filter(|number| range.contains(number));
        if inside.is_none() {
            let message = format!("must be {} to {}", range.start(), range.end());
            self.report(code::INVALID_VALUE, &field.path, field.node.line, message);
        }
        inside
    }

    /// The items of a list with their paths.
    pub(super) fn list(&mut self, field: Field) -> Option<Vec<(String, Node)>> {
        match field.node.content {
            Content::List(items) => {
                let path = |n: usize| format!("{}[{n}]", field.path);
                Some(items.into_iter().enumerate().map(|(n, item)| (path(n), item)).collect())
            }
            _ => {
                wrong_type(self.problems, &field.path, &field.node, "a list");
                None
            }
        }
    }

    pub(super) fn report(&self, code: &str, path: &str, line: u32, message: impl Into<String>) {
        self.problems.push(Problem::new(code, message).at(path).on_line(Some(line)));
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for entry in &self.entries {
            let near = nearest(&entry.key, self.known.iter().copied())
                .map_or(String::new(), |known| format!("; did you mean `{known}`?"));
            let message = format!("unknown key {}{near}", shown(&entry.key));
            self.report(code::UNKNOWN_KEY, &join(&self.path, &entry.key), entry.line, message);
        }
    }

    pub(super) fn problems(&self) -> &'p Problems {
        self.problems
    }
}

/// A node as text. What YAML reads as a number, boolean or nothing is not silently turned back.
pub(super) fn text(problems: &Problems, path: &str, node: &Node) -> Option<String> {
    match meaning(node) {
        Meaning::Text(text) => Some(text.to_owned()),
        _ => {
            wrong_type(problems, path, node, "a text");
            None
        }
    }
}

pub(super) fn wrong_type(problems: &Problems, path: &str, node: &Node, expected: &str) {
    let got = meaning(node);
    let hint = match &node.content {
        Content::Scalar { text, plain: true } if expected == "a text" && got != Meaning::Null => {
            format!("; YAML reads {} so: put it in quotes", shown(text))
        }
        Content::Scalar { .. } if expected == "a list" => "; write one item as `[item]`".to_owned(),
        Content::Scalar { plain: false, .. } => "; remove the quotes".to_owned(),
        _ => String::new(),
    };
    let message = format!("must be {expected}, not {}{hint}", got.name());
    problems.push(Problem::new(code::WRONG_TYPE, message).at(path).on_line(Some(node.line)));
}

/// A node as JSON. Nesting is bounded by the document's limit.
pub(super) fn json(problems: &Problems, path: &str, node: &Node) -> Value {
    match &node.content {
        Content::List(items) => {
            let item = |(n, item)| json(problems, &format!("{path}[{n}]"), item);
            Value::Array(items.iter().enumerate().map(item).collect())
        }
        Content::Mapping(entries) => {
            let entry = |entry: &Entry| {
                (entry.key.clone(), json(problems, &join(path, &entry.key), &entry.value))
            };
            Value::Object(entries.iter().map(entry).collect::<Map<_, _>>())
        }
        Content::Scalar { .. } => scalar_json(node).unwrap_or_else(|| {
            let message = "a number that JSON cannot hold; put it in quotes";
            let problem = Problem::new(code::NUMBER_OUT_OF_RANGE, message);
            problems.push(problem.at(path).on_line(Some(node.line)));
            Value::Null
        }),
    }
}

fn scalar_json(node: &Node) -> Option<Value> {
    match meaning(node) {
        Meaning::Null => Some(Value::Null),
        Meaning::Boolean(value) => Some(Value::Bool(value)),
        Meaning::Integer(number) => Number::from_i128(number).map(Value::Number),
        Meaning::Decimal(number) => Number::from_f64(number).map(Value::Number),
        Meaning::Text(text) => Some(Value::String(text.to_owned())),
        Meaning::Unrepresentable | Meaning::List | Meaning::Mapping => None,
    }
}
