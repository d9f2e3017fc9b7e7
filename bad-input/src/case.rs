//! Cases as they stand in the files of a corpus.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use tasker_messages::Problem;

use crate::content;

/// One case of a corpus.
#[derive(Debug, Clone)]
pub struct Case {
    /// Unique in its file.
    pub name: String,
    /// The columns between the name and what is expected.
    pub columns: Vec<String>,
    /// What must come of it.
    pub expect: String,
    /// The file and the line, for people.
    pub place: String,
}

/// The folder of the corpora.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The cases of a file: `name | column | … | expect`, one a line. A line that is empty or begins with
/// `#` is none. Columns are separated by ` | `, so that a bar without spaces around it is a bar.
///
/// # Panics
/// If the file cannot be read, or a case has not so many columns between its name and what is expected.
pub fn cases(path: &Path, columns: usize) -> Vec<Case> {
    let shown = path.display();
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut names = HashSet::new();
    let mut cases = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{shown}:{}", n + 1);
        let mut parts: Vec<String> =
            line.split(" | ").map(|part| part.trim_matches(' ').to_owned()).collect();
        assert_eq!(parts.len(), columns + 2, "{place}: not {columns} columns of content: {line}");
        let expect = parts.pop().unwrap_or_default();
        let name = parts.remove(0);
        assert!(names.insert(name.clone()), "{place}: a second case `{name}`");
        cases.push(Case { name, columns: parts, expect, place });
    }
    cases
}

/// The template that a case describes: everything.yaml with something else in place of a part.
///
/// # Panics
/// If the part does not stand there once.
pub fn template(case: &Case) -> Vec<u8> {
    let everything = include_str!("../corpus/templates/everything.yaml");
    let (cut, put) = (&case.columns[0], content(&case.columns[1]));
    let (before, after) = match cut.as_str() {
        "*" => ("", ""),
        "^" => ("", everything),
        "$" => (everything, ""),
        cut => {
            let cut = cut.replace('⏎', "\n");
            assert_eq!(everything.matches(&cut).count(), 1, "{}: cuts {cut:?}", case.place);
            everything.split_once(&cut).unwrap_or_default()
        }
    };
    [before.as_bytes(), &put, after.as_bytes()].concat()
}

/// A problem as the corpora note it: `CODE field line`, with `-` for nothing.
pub fn shown(problem: &Problem) -> String {
    let field = if problem.field.is_empty() { "-" } else { &problem.field };
    let line = problem.line.map_or("-".to_owned(), |line| line.to_string());
    format!("{} {field} {line}", problem.code)
}

/// How many problems are noted one by one.
const FEW: usize = 6;

/// Problems as the corpora note them: with commas between, or how many there are of each code.
pub fn shown_all(problems: &[Problem]) -> String {
    if problems.len() <= FEW {
        return problems.iter().map(shown).collect::<Vec<_>>().join(", ");
    }
    let mut codes: Vec<(&str, usize)> = Vec::new();
    for problem in problems {
        match codes.iter_mut().find(|(code, _)| *code == problem.code) {
            Some((_, n)) => *n += 1,
            None => codes.push((&problem.code, 1)),
        }
    }
    codes.iter().map(|(code, n)| format!("{n} x {code}")).collect::<Vec<_>>().join(", ")
}
