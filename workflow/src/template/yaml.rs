//! YAML as a small tree in which everything knows its line.
//!
//! It is built from the events of `granit-parser`, the maintained parser under `serde-saphyr`, and
//! not through serde: serde stops at the first problem, knows no line of a key, and has resolved
//! anchors, merge keys and tags before we could refuse them. Because aliases are refused, the tree
//! is never larger than its text, so the bounds on bytes and nesting bound everything.

use std::collections::HashSet;

use serde_saphyr::granit_parser::{self, ErrorKind, Event, Parser, ScalarStyle, ScanError, Span};
use tasker_messages::{Problem, code};

use super::problems::{Problems, shown};

/// Most bytes of a document.
pub(super) const MAX_BYTES: usize = 256 * 1024;
/// Deepest nesting of lists and mappings.
pub(super) const MAX_DEPTH: usize = 32;

/// A value and where it starts.
#[derive(Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) content: Content,
}

#[derive(Debug, PartialEq)]
pub(super) enum Content {
    /// The text, and whether it stands without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key of a mapping with its value.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u32,
    pub(super) value: Node,
}

/// Reads one document. Duplicate keys are reported and the first one kept; everything else that is
/// wrong ends the reading.
pub(super) fn read(source: &[u8], problems: &Problems) -> Option<Node> {
    match text(source).map(|text| Builder::new(problems).read(text)) {
        Ok(Ok(root)) => root,
        Ok(Err(problem)) | Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

/// The document as text that can be stored.
fn text(source: &[u8]) -> Result<&str, Problem> {
    let problem = |message: String| Problem::new(code::INVALID_ENCODING, message);
    if source.len() > MAX_BYTES {
        let message = format!("the document has {} bytes; the limit is {MAX_BYTES}", source.len());
        return Err(Problem::new(code::TOO_LARGE, message));
    }
    if source.starts_with(&[0xff, 0xfe]) || source.starts_with(&[0xfe, 0xff]) {
        return Err(problem("the document is UTF-16; save it as UTF-8".to_owned()));
    }
    let line_of = |at: usize| 1 + source[..at].iter().filter(|&&b| b == b'\n').count() as u32;
    if let Some(at) = source.iter().position(|&b| b == 0) {
        let message = "the document holds a NUL character; save it as UTF-8 text".to_owned();
        return Err(problem(message).on_line(Some(line_of(at))));
    }
    let text = std::str::from_utf8(source).map_err(|error| {
        let at = error.valid_up_to();
        problem(format!("not UTF-8 from byte {at}; save it as UTF-8")).on_line(Some(line_of(at)))
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// A list or mapping that has not ended.
enum Open {
    List { line: u32, items: Vec<Node> },
    Mapping { line: u32, entries: Vec<Entry>, seen: HashSet<String>, key: Option<Key> },
}

/// A key that waits for its value.
struct Key {
    text: String,
    line: u32,
    duplicate: bool,
}

struct Builder<'p> {
    problems: &'p Problems,
    open: Vec<Open>,
    root: Option<Node>,
    documents: u32,
    refused: bool,
}

impl<'p> Builder<'p> {
    fn new(problems: &'p Problems) -> Self {
        Self { problems, open: Vec::new(), root: None, documents: 0, refused: false }
    }

    fn read(mut self, text: &str) -> Result<Option<Node>, Problem> {
        let mut options = granit_parser::options! {
            disallow_directives: true,
            // An alias without its anchor is then an event like any other, refused with its line.
            emit_unresolved_aliases: true,
            flow_nesting_limit: MAX_DEPTH + 1,
            block_nesting_limit: MAX_DEPTH + 1,
        };
        options.set_emit_comments(false);
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| syntax_problem(&error))?;
            self.take(event, span)?;
        }
        if self.refused {
            return Ok(None);
        }
        match self.root {
            Some(root) => Ok(Some(root)),
            None => Err(Problem::new(code::INVALID_SYNTAX, "the document is empty")),
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let line = span.start.line() as u32;
        if event.anchor_id().is_some() {
            self.refuse("anchors (`&name`)", line);
        }
        if event.tag().is_some() {
            self.refuse("tags (`!name`)", line);
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message =
                        "a second document starts here; put each template in its own file";
                    return Err(Problem::new(code::INVALID_SYNTAX, message).on_line(Some(line)));
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.refuse("aliases (`*name`)", line);
                self.scalar(String::new(), true, line)?;
            }
            Event::Scalar(text, style, ..) => {
                self.scalar(text.into_owned(), style == ScalarStyle::Plain, line)?;
            }
            Event::SequenceStart(..) => self.enter(Open::List { line, items: Vec::new() }, line)?,
            Event::MappingStart(..) => {
                let (entries, seen) = (Vec::new(), HashSet::new());
                self.enter(Open::Mapping { line, entries, seen, key: None }, line)?;
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { line, items }) => {
                    self.attach(Node { line, content: Content::List(items) })?;
                }
                Some(Open::Mapping { line, entries, .. }) => {
                    self.attach(Node { line, content: Content::Mapping(entries) })?;
                }
                None => {}
            },
            // Comments and anchors' names are not asked for; the rest carries no content.
            _ => {}
        }
        Ok(())
    }

    fn enter(&mut self, open: Open, line: u32) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(line));
        }
        if let Some(Open::Mapping { key: None, .. }) = self.open.last() {
            return Err(self.unusable_key(line));
        }
        self.open.push(open);
        Ok(())
    }

    fn scalar(&mut self, text: String, plain: bool, line: u32) -> Result<(), Problem> {
        if text.contains('\0') {
            let message = "a text holds a NUL character, which cannot be stored; remove it";
            let problem = Problem::new(code::NUL_CHARACTER, message);
            return Err(problem.at(self.path()).on_line(Some(line)));
        }
        match self.open.last() {
            Some(Open::Mapping { key: None, .. }) => self.key(text, plain, line),
            _ => self.attach(Node { line, content: Content::Scalar { text, plain } }),
        }
    }

    fn key(&mut self, text: String, plain: bool, line: u32) -> Result<(), Problem> {
        if plain && text == "<<" {
            self.refuse("merge keys (`<<`)", line);
        }
        // What was refused left an empty text in its place.
        if is_nothing(&text, plain) && !self.refused {
            return Err(self.unusable_key(line));
        }
        let Some(Open::Mapping { seen, key, .. }) = self.open.last_mut() else { return Ok(()) };
        let duplicate = !seen.insert(text.clone());
        *key = Some(Key { text: text.clone(), line, duplicate });
        if duplicate && !self.refused {
            let message = format!("the key {} occurs twice; remove one", shown(&text));
            let problem = Problem::new(code::DUPLICATE_KEY, message);
            self.problems.push(problem.at(self.path()).on_line(Some(line)));
        }
        Ok(())
    }

    fn attach(&mut self, mut node: Node) -> Result<(), Problem> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Mapping { entries, key, .. }) => {
                let Some(Key { text, line, duplicate }) = key.take() else {
                    return Err(self.unusable_key(node.line));
                };
                // The parser may place a value that is not there on the line of what follows.
                if let Content::Scalar { text, plain } = &node.content
                    && is_nothing(text, *plain)
                {
                    node.line = line;
                }
                if !duplicate {
                    entries.push(Entry { key: text, line, value: node });
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, what: &str, line: u32) {
        self.refused = true;
        let message = format!("{what} are not allowed in a template; spell the value out");
        let problem = Problem::new(code::YAML_FEATURE_REFUSED, message);
        self.problems.push(problem.at(self.path()).on_line(Some(line)));
    }

    fn unusable_key(&self, line: u32) -> Problem {
        let message = "a key must be a text; lists, mappings and nothing cannot be keys";
        Problem::new(code::INVALID_SYNTAX, message).at(self.path()).on_line(Some(line))
    }

    /// Where the next value belongs.
    fn path(&self) -> String {
        self.open.iter().fold(String::new(), |path, open| match open {
            Open::List { items, .. } => format!("{path}[{}]", items.len()),
            Open::Mapping { key: Some(key), .. } => join(&path, &key.text),
            Open::Mapping { key: None, .. } => path,
        })
    }
}

/// Whether nothing stands there: the parser writes that as the sign for it.
fn is_nothing(text: &str, plain: bool) -> bool {
    plain && matches!(text, "" | "~")
}

/// The path of a key inside a mapping. A hostile key is shortened and escaped.
pub(super) fn join(path: &str, key: &str) -> String {
    let head: String = key.chars().take(60).flat_map(char::escape_debug).collect();
    if path.is_empty() { head } else { format!("{path}.{head}") }
}

fn too_deep(line: u32) -> Problem {
    let message = format!("nested deeper than the limit of {MAX_DEPTH}");
    Problem::new(code::TOO_DEEP, message).on_line(Some(line))
}

fn syntax_problem(error: &ScanError) -> Problem {
    let line = error.marker().line() as u32;
    let (code, hint) = match error.kind() {
        ErrorKind::RecursionLimitExceeded => return too_deep(line),
        ErrorKind::DirectiveDisallowed => (code::YAML_FEATURE_REFUSED, "; remove the `%` line"),
        ErrorKind::UndeclaredTagHandle => {
            (code::YAML_FEATURE_REFUSED, "; tags are not allowed in a template")
        }
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation => (code::INVALID_SYNTAX, "; indent with spaces"),
        ErrorKind::MappingValueNotAllowed => {
            (code::INVALID_SYNTAX, "; check the indentation, or quote a text that holds `: `")
        }
        _ => (code::INVALID_SYNTAX, ""),
    };
    let column = error.marker().col() + 1;
    Problem::new(code, format!("{}{hint} (column {column})", error.info())).on_line(Some(line))
}
