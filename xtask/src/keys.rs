//! `tests/template-keys.txt`: for each key of a template a test that fails if the key has no effect. No
//! key of `docs/reference.md` may be without one, and the tests must be there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::workspace;

const LIST: &str = "tests/template-keys.txt";

pub(crate) fn check(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let top = workspace()?;
    let keys = keys(&fs::read_to_string(top.join("docs/reference.md"))?);
    let list = fs::read_to_string(top.join(LIST))?;
    let mut listed = BTreeSet::new();
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [table, key, "informs"] => drop(listed.insert(format!("{table} {key}"))),
            [table, key, file, test] if has_test(&top.join(file), test) => {
                listed.insert(format!("{table} {key}"));
            }
            _ => wrong.push(format!("{LIST}: there is no such test: {line}")),
        }
    }
    for key in keys.symmetric_difference(&listed) {
        wrong.push(format!("{LIST} and docs/reference.md do not agree about the key `{key}`"));
    }
    Ok(())
}

fn has_test(file: &Path, test: &str) -> bool {
    let is_it = |line: &str| line.trim_start_matches("async ").starts_with(&format!("fn {test}("));
    fs::read_to_string(file).is_ok_and(|text| text.lines().any(|line| is_it(line.trim())))
}

/// The first columns of the two tables of keys, each after the name of its table.
fn keys(reference: &str) -> BTreeSet<String> {
    let section = |title: &str| {
        let text = reference.split_once(title).map(|(_, text)| text).unwrap_or_default();
        text.split("\n### ").next().unwrap_or_default()
    };
    let mut keys = BTreeSet::new();
    for (table, title) in [("task", "\n### The task\n"), ("step", "\n### A step\n")] {
        let rows =
            section(title).lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        keys.extend(rows.map(|(key, _)| format!("{table} {key}")));
    }
    keys
}
