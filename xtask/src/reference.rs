//! `docs/reference.md` against the code: every setting, error code, state and reason has a row, and no row
//! names one that does not exist.

use std::collections::BTreeSet;
use std::fs;

use crate::workspace;

pub(crate) fn check(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let top = workspace()?;
    let read = |path: &str| fs::read_to_string(top.join(path));
    let rows = first_columns(&read("docs/reference.md")?);
    let codes: BTreeSet<String> = codes(&read("messages/src/code.rs")?)
        .chain(codes(&read("sdk/rust/src/code.rs")?))
        .collect();
    let settings: BTreeSet<String> = settings(&read("config/default.toml")?).collect();
    // Streams are written in capitals as well.
    let is_code = |name: &&String| {
        !name.starts_with("TASKER_") && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    };
    for missing in codes.iter().chain(&settings).filter(|name| !rows.contains(*name)) {
        wrong.push(format!("docs/reference.md has no row for `{missing}`"));
    }
    for unknown in rows.iter().filter(is_code).filter(|name| !codes.contains(*name)) {
        wrong.push(format!(
            "docs/reference.md describes the code `{unknown}`, which does not exist"
        ));
    }
    for file in ["state.rs", "why.rs", "step_kind.rs", "identity.rs"] {
        let text = read(&format!("messages/src/{file}"))?;
        for missing in names(&text).filter(|name| !rows.contains(name)) {
            wrong.push(format!("docs/reference.md has no row for `{missing}` of {file}"));
        }
    }
    let section = |name: &str| name.split_once('.').map(|(section, _)| section.to_owned());
    let sections: BTreeSet<String> = settings.iter().filter_map(|name| section(name)).collect();
    for row in rows.iter().filter(|name| section(name).is_some_and(|s| sections.contains(&s))) {
        if !settings.contains(row) && !row.contains(' ') {
            wrong.push(format!(
                "docs/reference.md describes the setting `{row}`, which does not exist"
            ));
        }
    }
    let reference = read("docs/reference.md")?;
    let statuses = reference.split_once("| status | code |").map_or("", |(_, text)| text);
    let statuses = statuses.split("\n## ").next().unwrap_or_default();
    let problem = read("orchestrator-node/src/http/problem.rs")?;
    let answered = problem.split_once("fn status_of").map_or("", |(_, text)| text);
    let answered = answered.split("\n}").next().unwrap_or_default();
    for (_, rest) in
        answered.match_indices("code::").map(|(at, found)| answered.split_at(at + found.len()))
    {
        let name = rest.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).next();
        if let Some(name) = name.filter(|name| !name.is_empty())
            && !statuses.contains(&format!("`{name}`"))
        {
            wrong.push(format!(
                "docs/reference.md does not say with which status `{name}` is answered"
            ));
        }
    }
    Ok(())
}

/// `docs/guide.md` shows the files that are compiled.
pub(crate) fn check_guide(wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let top = workspace()?;
    let guide = fs::read_to_string(top.join("docs/guide.md"))?;
    for file in ["primes.yaml", "src/main.rs"] {
        let text = fs::read_to_string(top.join("examples/guide").join(file))?;
        if !guide.contains(&format!("\n{}\n```", text.trim_end())) {
            wrong.push(format!("docs/guide.md does not show examples/guide/{file} as it is"));
        }
    }
    Ok(())
}

/// What stands in backticks in the first column of any table.
fn first_columns(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Constants and the names in the list of codes: words of capitals at the beginning of a line.
fn codes(text: &str) -> impl Iterator<Item = String> + '_ {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    code.lines().filter_map(|line| {
        let line = line.trim().trim_start_matches("pub const ");
        let end = line.find(|c: char| !(c.is_ascii_uppercase() || c == '_'))?;
        let (name, rest) = line.split_at(end);
        let is_code = name.contains('_')
            || name == "INTERNAL"
            || name == "UNAVAILABLE"
            || name == "CANCELLED";
        (is_code && (rest.starts_with(';') || rest.starts_with(':'))).then(|| name.to_owned())
    })
}

/// The names of states, reasons and kinds: `Variant => "name"` in a list.
fn names(text: &str) -> impl Iterator<Item = String> + '_ {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    code.match_indices("=> \"").filter_map(move |(at, found)| {
        let (name, _) = code[at + found.len()..].split_once('"')?;
        Some(name.to_owned())
    })
}

/// `section.key` of every setting.
fn settings(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut section = "";
    text.lines().filter_map(move |line| {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
            return None;
        }
        let (key, _) = line.split_once(" = ").filter(|_| !line.starts_with('#'))?;
        Some(format!("{section}.{key}"))
    })
}
