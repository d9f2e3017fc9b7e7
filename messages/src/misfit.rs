//! Where and why a document does not fit its type.
//!
//! serde says what it stumbled over and where in the text; the field is what the text before that place
//! leads to.

use crate::{Problem, code, nearest};

/// Longest message of serde that is passed on, in characters: it may quote the document.
const MAX_TEXT: usize = 300;
/// Longest field, in characters: it may be made of hostile keys.
const MAX_FIELD: usize = 200;

/// The problem behind an error that came of reading a text which is valid JSON.
pub(crate) fn problem(text: &str, error: &serde_json::Error) -> Problem {
    let line = u32::try_from(error.line()).ok().filter(|&line| line > 0);
    let told = error.to_string();
    let what = told.rsplit_once(" at line ").map_or(told.as_str(), |(what, _)| what);
    let path = Path::before(&text[..place(text, error)]);
    let (code, field, message) = explain(what, &path);
    let field: String = field.chars().take(MAX_FIELD).collect();
    Problem::new(code, message).at(field).on_line(line)
}

fn explain(what: &str, path: &Path) -> (&'static str, String, String) {
    let named = |prefix: &str| what.strip_prefix(prefix)?.split_once('`').map(|(name, _)| name);
    if let Some(name) = named("missing field `") {
        return (code::MISSING_KEY, join(&path.outer(), name), format!("`{name}` is missing"));
    }
    // What the document says comes first and may hold anything; what is known comes last.
    if let Some((name, known)) = split(what, "unknown field `") {
        let message = format!("unknown key {}{}", shown(name), suggestion(name, known));
        return (code::UNKNOWN_KEY, join(&path.outer(), &plain(name)), message);
    }
    if let Some((name, known)) = split(what, "unknown variant `") {
        let all = names(known).collect::<Vec<_>>().join(", ");
        let near = suggestion(name, known);
        let message = format!("must be one of {all}, not {}{near}", shown(name));
        return (code::INVALID_VALUE, path.inner(), message);
    }
    // That is all that serde_json says where a choice is to be made by a name.
    if what == "expected value" {
        let message = "must be a name, or an object with one, that is known here".to_owned();
        return (code::WRONG_TYPE, path.inner(), message);
    }
    let code = match what {
        _ if what.starts_with("invalid type") || what.starts_with("invalid length") => {
            code::WRONG_TYPE
        }
        _ if what.starts_with("number out of range") => code::NUMBER_OUT_OF_RANGE,
        _ if what.contains("must match") && what.starts_with("invalid ") => code::INVALID_NAME,
        _ => code::INVALID_VALUE,
    };
    (code, path.inner(), plain_text(what))
}

/// What was said, and what serde knows instead.
fn split<'a>(what: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let rest = what.strip_prefix(prefix)?;
    let end = rest.rfind("`, expected").or_else(|| rest.rfind("`, there are no"))?;
    Some((&rest[..end], &rest[end + 1..]))
}

/// The names in a list such as "expected one of `a`, `b`".
fn names(known: &str) -> impl Iterator<Item = &str> {
    known.split('`').skip(1).step_by(2)
}

fn suggestion(name: &str, known: &str) -> String {
    nearest(name, names(known)).map_or(String::new(), |near| format!("; did you mean `{near}`?"))
}

fn shown(name: &str) -> String {
    let head: String = name.chars().take(60).collect();
    let tail = if head.len() < name.len() { "…" } else { "" };
    format!("{head:?}{tail}")
}

/// A key as a field shows it: short and without control characters.
fn plain(key: &str) -> String {
    key.chars().take(60).flat_map(char::escape_debug).collect()
}

fn plain_text(what: &str) -> String {
    let escape = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    what.chars().take(MAX_TEXT).map(escape).collect()
}

/// Where in the text an error stands. serde_json counts lines from 1 and in them bytes, and has read so
/// many.
fn place(text: &str, error: &serde_json::Error) -> usize {
    let mut start = 0;
    for _ in 1..error.line() {
        start += text[start..].find('\n').map_or(0, |end| end + 1);
    }
    text.floor_char_boundary((start + error.column()).min(text.len()))
}

/// The objects and lists that are open at some place of a text.
struct Path(Vec<Open>);

enum Open {
    Object { key: Option<String> },
    List { index: usize },
}

impl Path {
    fn before(text: &str) -> Self {
        let mut open = Vec::new();
        // Whoever refuses a value may have read on to the end of what holds it; of a list or an object
        // that is refused itself, the first bracket has been read.
        let text = text.trim_end();
        let text = text.strip_suffix(['}', ']', '[', '{']).unwrap_or(text);
        let mut rest = text.char_indices();
        let mut after_value = false;
        while let Some((at, c)) = rest.next() {
            match c {
                '{' => open.push(Open::Object { key: None }),
                '[' => open.push(Open::List { index: 0 }),
                '}' | ']' => drop(open.pop()),
                ':' => after_value = true,
                ',' => {
                    after_value = false;
                    if let Some(Open::List { index }) = open.last_mut() {
                        *index += 1;
                    }
                }
                '"' => {
                    let end = string_end(&mut rest).unwrap_or(text.len());
                    if let (Some(Open::Object { key }), false) = (open.last_mut(), after_value) {
                        *key = Some(read_key(&text[at..end]));
                    }
                }
                _ => {}
            }
            if matches!(c, '{' | '[') {
                after_value = false;
            }
        }
        Self(open)
    }

    /// The value that was being read.
    fn inner(&self) -> String {
        self.0.iter().fold(String::new(), |path, open| match open {
            Open::Object { key: Some(key) } => join(&path, key),
            Open::Object { key: None } => path,
            Open::List { index } => format!("{path}[{index}]"),
        })
    }

    /// The object in which it stands.
    fn outer(&self) -> String {
        let open = &self.0[..self.0.len().saturating_sub(1)];
        open.iter().fold(String::new(), |path, open| match open {
            Open::Object { key: Some(key) } => join(&path, key),
            Open::Object { key: None } => path,
            Open::List { index } => format!("{path}[{index}]"),
        })
    }
}

/// The place behind the quote that ends a text.
fn string_end(rest: &mut std::str::CharIndices<'_>) -> Option<usize> {
    while let Some((at, c)) = rest.next() {
        match c {
            '"' => return Some(at + 1),
            '\\' => drop(rest.next()),
            _ => {}
        }
    }
    None
}

fn read_key(quoted: &str) -> String {
    let key = serde_json::from_str::<String>(quoted);
    plain(&key.unwrap_or_else(|_| quoted.trim_matches('"').to_owned()))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::Namespace;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read matters")]
    struct Outer {
        reason: String,
        #[serde(default)]
        inner: BTreeMap<Namespace, Inner>,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        color: Option<Color>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read matters")]
    struct Inner {
        n: u32,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Color {
        Red,
        Green,
    }

    #[test]
    fn misfits_name_their_field() {
        let table = [
            ("{}", "MISSING_KEY reason 1"),
            ("{\"reason\": 5}", "WRONG_TYPE reason 1"),
            ("{\"reason\": 5 }", "WRONG_TYPE reason 1"),
            ("{\"reason\": null}", "WRONG_TYPE reason 1"),
            ("{\"reason\": []}", "WRONG_TYPE reason 1"),
            ("{\"reason\": {}}", "WRONG_TYPE reason 1"),
            ("{\"reason\": true, \"list\": []}", "WRONG_TYPE reason 1"),
            ("{\n\"reason\": \"r\",\n\"reeson\": 1}", "UNKNOWN_KEY reeson 3"),
            (
                "{\"reason\": \"r\", \"list\": [{\"n\": 1}, {\"n\": -1}]}",
                "INVALID_VALUE list[1].n 1",
            ),
            ("{\"reason\": \"r\", \"list\": [{\"n\": 1}, {}]}", "MISSING_KEY list[1].n 1"),
            ("{\"reason\": \"r\", \"list\": [{\"n\": 1}, {\"m\": 1}]}", "UNKNOWN_KEY list[1].m 1"),
            ("{\"reason\": \"r\", \"list\": [{\"n\": 1}, 7]}", "WRONG_TYPE list[1] 1"),
            ("{\"reason\": \"r\", \"list\": {}}", "WRONG_TYPE list 1"),
            ("{\"reason\": \"r\", \"inner\": {\"A\": {\"n\": 1}}}", "INVALID_NAME inner.A 1"),
            ("{\"reason\": \"r\", \"inner\": {\"a\": {\"n\": \"1\"}}}", "WRONG_TYPE inner.a.n 1"),
            ("{\"reason\": \"r\", \"color\": \"blue\"}", "INVALID_VALUE color 1"),
            ("{\"reason\": \"r\", \"color\": 7}", "WRONG_TYPE color 1"),
            ("{\"reason\": \"r\", \"color\": []}", "WRONG_TYPE color 1"),
            ("{\"reason\": \"r\", \"color\": {}}", "WRONG_TYPE color 1"),
            ("{\"reason\": \"r\", \"color\": \"b`, expected\"}", "INVALID_VALUE color 1"),
            ("{\"reason\": \"r\", \"\\u001b[2J\": 1}", "UNKNOWN_KEY \\u{1b}[2J 1"),
            ("{\"reason\": \"r\", \"a`, expected `b\": 1}", "UNKNOWN_KEY a`, expected `b 1"),
        ];
        for (text, expect) in table {
            let error = serde_json::from_str::<Outer>(text).expect_err(text);
            let Problem { code, field, line, message } = problem(text, &error);
            let got = format!("{code} {field} {}", line.unwrap_or_default());
            assert_eq!(got, expect, "{text}: {error}: {message}");
            assert!(!message.contains(char::is_control), "{message}");
        }
        let error = serde_json::from_str::<Outer>("{\"reeson\": 1}").expect_err("a slip");
        assert!(problem("{\"reeson\": 1}", &error).message.contains("did you mean `reason`?"));
    }
}
